"""The protobuf encoding, as far as ONNX uses it: https://protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

from collections.abc import Iterator


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of a protobuf message: an integer, or the bytes of everything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, wire, value
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > end - at:
            raise ValueError("cut off")
        yield number, wire, data[at : at + size]
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def as_bytes(value: int | memoryview) -> memoryview:
    """The bytes of a field; ValueError where it is a number."""
    if isinstance(value, int):
        raise ValueError("a number in the place of bytes")
    return value


def signed(value: int) -> int:
    """A number as the signed 64-bit one that it encodes."""
    return value - 2**64 if value >= 2**63 else value


def integers(value: int | memoryview, max_bytes: int | None = None) -> list[int]:
    """One integer, or a packed list of them; ValueError where the list is longer than ``max_bytes``."""
    if isinstance(value, int):
        return [signed(value)]
    if max_bytes is not None and len(value) > max_bytes:
        raise ValueError("too many integers")
    found, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        found.append(signed(number))
    return found
