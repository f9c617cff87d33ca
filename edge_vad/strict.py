"""Plain JSON or YAML values to frozen dataclasses and back, strictly: an unknown key or a wrong type is an error."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from edge_vad.errors import EdgeVadError, did_you_mean

T = TypeVar("T")


def from_plain(kind: type[T], values: Any, where: str, error: type[EdgeVadError], *, ignore_unknown: bool = False) -> T:
    """An instance of the dataclass ``kind``; ``error`` names the file and the key, and the nearest known key.

    ignore_unknown: at the top level only, for a file that a later minor version may have added keys to.
    """
    if not isinstance(values, Mapping):
        raise error(f"{where}: expected keys and values, found {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields and not ignore_unknown:
            raise error(f"{where}: unknown key {key!r}{did_you_mean(str(key), fields)}")
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{where}: {name}", error)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise error(f"{where}: the key {name!r} is missing")
    try:
        return kind(**arguments)
    except ValueError as problem:
        raise error(f"{where}: {problem}") from problem


def _convert(hint: Any, value: Any, where: str, error: type[EdgeVadError]) -> Any:
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where, error)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where, error)
    if origin is Literal:
        if value is False and "off" in arguments:
            return "off"  # YAML reads a bare off as a boolean
        if value not in arguments:
            known = [str(a) for a in arguments]
            raise error(f"{where}: {value!r} is not allowed{did_you_mean(str(value), known)}")
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, where, error)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise error(f"{where}: expected keys and values, found {value!r}")
        return {str(k): _convert(arguments[1], v, f"{where}.{k}", error) for k, v in value.items()}
    return _convert_scalar(hint, value, where, error)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str, error: type[EdgeVadError]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise error(f"{where}: expected a list, found {value!r}")
    if arguments[-1] is Ellipsis:
        return tuple(_convert(arguments[0], v, where, error) for v in value)
    if len(value) != len(arguments):
        raise error(f"{where}: expected {len(arguments)} values, found {len(value)}")
    return tuple(_convert(a, v, where, error) for a, v in zip(arguments, value, strict=True))


def _convert_scalar(hint: Any, value: Any, where: str, error: type[EdgeVadError]) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise error(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def check_range(low: float, high: float, /, **values: float | None) -> None:
    """ValueError names the first value that does not lie in low..high, ends included; None is left out, NaN lies nowhere."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must lie in {low:g}..{high:g}, not {value!r}")


def to_plain(instance: Any) -> dict[str, Any]:
    """The dataclass as JSON values: tuples become lists."""
    plain = _plain(dataclasses.asdict(instance))
    return typing.cast(dict[str, Any], plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def numbers(value: Any) -> list[float]:
    """Every number in JSON values, in the order of their sorted keys."""
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [number for inner in value for number in numbers(inner)]
    return [float(value)] if isinstance(value, (int, float)) else []
