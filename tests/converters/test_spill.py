"""Features as files: what comes back is what went in, and clips are cut alike everywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from edge_vad.converters import spill
from edge_vad.converters.spill import FRAME_BYTES, PART_BYTES, Spool, cut, pack, read_frames, unpack
from hypothesis import given
from hypothesis import strategies as st

from edge_vad.errors import OutputError
from edge_vad.streams import FrameFeatures, LocalFeatures


def regions(n: int, seed: int, memorised: bool) -> LocalFeatures:
    generator = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    rows = {"spatial": values(n, 6, 5), "velocity": values(n, 1, 3)} if n else {}
    if n and memorised:
        rows["memorised:temporal"] = values(n, 1, 5)
    age = generator.integers(1, 9, n)
    return LocalFeatures(values(n, 4), values(n), age, bool(seed % 2), age > 3, values(n), rows)


def frames(counts: list[int], highlevel_every: int, prefixes: tuple[str, ...]) -> list[tuple[float, FrameFeatures]]:
    made = []
    for i, n in enumerate(counts):
        local = {prefix: regions(n, i + 100 * k, memorised=k == 0) for k, prefix in enumerate(prefixes)}
        row = np.full(7, i, np.float32) if highlevel_every and i % highlevel_every == 0 else None
        made.append((i / 3, FrameFeatures(local, row, {"motion": 1.0})))
    return made


def test_every_field_of_the_features_is_packed() -> None:
    known = {"boxes", "confidence", "age", "known", "continued", "speed", "rows"}
    assert {field.name for field in dataclasses.fields(LocalFeatures)} == known
    assert {field.name for field in dataclasses.fields(FrameFeatures)} == {"local", "highlevel", "stage_ms"}


def assert_equal(a: tuple[float, FrameFeatures], b: tuple[float, FrameFeatures]) -> None:
    assert a[0] == b[0] and list(a[1].local) == list(b[1].local)
    for prefix, local in a[1].local.items():
        other = b[1].local[prefix]
        assert local.known is other.known and local.rows.keys() == other.rows.keys()
        named = [
            (getattr(local, name), getattr(other, name)) for name in ("boxes", "confidence", "age", "continued", "speed")
        ]
        for one, another in [*named, *((rows, other.rows[kind]) for kind, rows in local.rows.items())]:
            assert one.dtype == another.dtype and one.shape == another.shape and one.tobytes() == another.tobytes()
    assert (a[1].highlevel is None) == (b[1].highlevel is None)
    if a[1].highlevel is not None:
        np.testing.assert_array_equal(a[1].highlevel, b[1].highlevel)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 3), st.sampled_from([("",), ("", "object_")]))
def test_frames_come_back_bit_by_bit(counts: list[int], highlevel_every: int, prefixes: tuple[str, ...]) -> None:
    made = frames(counts, highlevel_every, prefixes)
    data = pack(made)
    back = unpack(data, "x")
    assert len(back) == len(made) and data == pack(made)
    for one, another in zip(made, back, strict=True):
        assert_equal(one, another)


def test_any_stretch_of_a_clip_is_read_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "PIECE_BYTES", 3 * FRAME_BYTES)
    made = frames([1, 0, 2, 3, 0, 0, 1, 2, 1, 1, 4], 2, ("",))
    spool = Spool(tmp_path, "k")
    for timestamp, features in made:
        spool.add(timestamp, features)
    spool.flush()
    spool.flush()
    assert len(spool.pieces) > 2 and len(list(tmp_path.iterdir())) == len(spool.pieces)
    for start in range(len(made)):
        for stop in range(start, len(made) + 1):
            back = list(read_frames(tmp_path, spool.pieces, start, stop))
            assert [t for t, _ in back] == [t for t, _ in made[start:stop]]
            for one, another in zip(made[start:stop], back, strict=True):
                assert_equal(one, another)


def test_a_piece_that_somebody_took_away(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"k\.00000\.piece: cannot be read back"):
        list(read_frames(tmp_path, [("k.00000.piece", 0, 5)], 0, 5))


@given(st.integers(1, 400), st.integers(1, 4), st.integers(1, 8))
def test_a_short_clip_is_cut_evenly_and_as_long_as_a_part_has_forty_frames(n: int, stride: int, wanted: int) -> None:
    parts = cut([FRAME_BYTES] * n, stride, wanted)
    n_parts = max(1, min(wanted, n * stride // 40))
    assert [list(range(*part)) for part in parts] == [list(p) for p in np.array_split(np.arange(n), n_parts)]


@given(st.lists(st.integers(0, 3 * PART_BYTES // 2), min_size=1, max_size=60), st.integers(1, 8))
def test_no_part_of_several_frames_takes_more_than_a_part_may(sizes: list[int], wanted: int) -> None:
    parts = cut(sizes, 2, wanted)
    assert [i for part in parts for i in range(*part)] == list(range(len(sizes)))
    assert all(stop - start == 1 or sum(sizes[start:stop]) <= PART_BYTES for start, stop in parts)
