"""Every function of `edge_vad.tensors` gives what its twin in numpy gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_host import CPU, boxes_around, close, tensor

from edge_vad import features, sampling, streams, tracks
from edge_vad.banks.exact import ExactBank
from edge_vad.motion import MotionSettings, RgbDifference
from edge_vad.tensors import features as tensor_features
from edge_vad.tensors import sampling as tensor_sampling
from edge_vad.tensors import streams as tensor_streams
from edge_vad.tensors import tracks as tensor_tracks
from edge_vad.tensors import transfer
from edge_vad.tensors.motion import TensorDifference
from edge_vad.tensors.search import TensorBank
from edge_vad.types import Frame

SEEDS = st.integers(0, 2**32 - 1)
N = st.integers(1, 7)


def picture(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Noise, or as bright or dark as it gets."""
    if generator.random() < 0.3:
        return np.full((rows, columns, 3), generator.choice([0, 255]), np.uint8)
    return generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(SEEDS, N, st.integers(2, 40), st.integers(2, 40), st.integers(1, 33))
def test_crops(seed: int, n: int, rows: int, columns: int, side: int) -> None:
    generator = np.random.default_rng(seed)
    image, boxes = picture(generator, rows, columns), boxes_around(generator, n, columns, rows)
    found = tensor_sampling.crops(tensor(image), tensor(boxes), side, side + 1)
    assert np.array_equal(found.numpy(), sampling.crops(image, boxes, side, side + 1))
    assert np.array_equal(tensor_sampling.resize(tensor(image), side, 5).numpy(), sampling.resize(image, side, 5))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 30), st.integers(1, 30), st.integers(1, 9))
def test_means_of_blocks_luma_and_repeated_edges(seed: int, rows: int, columns: int, factor: int) -> None:
    image = picture(np.random.default_rng(seed), rows, columns)
    given_there = tensor(image)
    assert np.array_equal(tensor_sampling.decimate(given_there, factor).numpy(), sampling.decimate(image, factor))
    no_luma = Frame(image, np.zeros((0, 0), np.uint8), 0.0, 0)
    assert np.array_equal(tensor_sampling.luma_of(given_there).numpy(), streams.working_luma(no_luma, image))
    padded = np.pad(image, ((0, -rows % factor), (0, -columns % factor), (0, 0)), mode="edge")
    assert np.array_equal(tensor_sampling.edge_padded(given_there, factor).numpy(), padded)


def test_moving_pixels_and_their_past() -> None:
    generator = np.random.default_rng(2)
    one, other = RgbDifference(MotionSettings()), TensorDifference(MotionSettings())
    background = generator.integers(60, 190, (33, 41, 3), dtype=np.uint8)
    n_moving = 0
    for index, time_s in enumerate([0.0, 0.1, 0.21, 0.3, 0.38, 0.5, 0.9, 1.0, 3.0, 3.1, 3.2]):
        image = background + generator.integers(0, 5 + 20 * (index % 2), background.shape, dtype=np.uint8)
        luma = np.ascontiguousarray(image[..., 1])
        moving, past = one.update(image, luma, time_s)
        small, there, past_there = other.compare(tensor(image), time_s)
        other.remember(small, luma, time_s)
        assert np.array_equal(there.numpy(), moving)
        assert [lag for lag, _ in past_there] == [lag for lag, _ in past]
        assert all(a is b for (_, a), (_, b) in zip(past_there, past, strict=True))
        n_moving += moving.sum()
    assert n_moving > 100


@settings(max_examples=40, deadline=None)
@given(SEEDS, N, st.integers(0, 7))
def test_links(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    before = boxes_around(generator, m, 90, 60)
    moved = before[generator.integers(0, m, n)] if m else boxes_around(generator, n, 90, 60)
    boxes = (moved + generator.normal(0, 3, moved.shape)).astype(np.float32)
    speed = generator.normal(0, 0.5, (n, 2)).astype(np.float32)
    found = tensor_tracks.link(tensor(boxes), tensor(before), tensor(speed), 0.2)
    assert np.array_equal(found.numpy(), tracks.link(boxes, before, speed, 0.2))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_histories_of_any_length(seed: int, lengths: list[int]) -> None:
    depth = 5
    history = np.random.default_rng(seed).normal(0, 1, (len(lengths), depth, 2)).astype(np.float32)
    found = tensor_tracks.median(tensor(history), torch.tensor(lengths))
    expected = [np.median(h[depth - n :], axis=0) if n else np.zeros(2) for h, n in zip(history, lengths, strict=True)]
    close(found, np.array(expected, np.float32))


@pytest.mark.parametrize("kind", ["last", "average", "maximum", "average+maximum"])
def test_pooling_over_time(kind: features.TemporalPooling) -> None:
    lengths = [1, 2, 4, 3]
    history = np.random.default_rng(0).normal(0, 1, (4, 4, 3, 2, 5)).astype(np.float32)
    clips = [[*h[4 - n :]] for h, n in zip(history, lengths, strict=True)]
    expected = np.stack([features.temporal_pooling(clip, kind) for clip in clips])
    close(tensor_features.temporal_pooling(tensor(history), torch.tensor(lengths), kind), expected)


@pytest.mark.parametrize("groups", [None, 4])
@pytest.mark.parametrize("sizes", [((16, 16), (8, 8)), ((9, 11), (4, 5)), ((7, 7),), ((4, 4), (8, 8))])
def test_local_features_and_patches(sizes: tuple[tuple[int, int], ...], groups: int | None) -> None:
    generator = np.random.default_rng(1)
    taps = [generator.normal(0, 1, (3, 4 * (i + 1), *size)).astype(np.float32) for i, size in enumerate(sizes)]
    expected = features.local_features(taps, groups)
    pooling = tensor_features.LocalPooling(groups)
    found = pooling([tensor(tap).contiguous(memory_format=torch.channels_last) for tap in taps])
    close(found, expected)
    close(pooling([tensor(tap) for tap in taps]), expected)
    close(tensor_features.spatial_patches(found, 2, 1), features.spatial_patches(expected, 2, 1))
    close(tensor_features.normalised(found), features.normalised(expected))
    close(tensor_features.global_features([tensor(t) for t in taps]), features.global_features(taps))
    kinds: tuple[features.GlobalPooling, ...] = ("average", "maximum")
    for kind in kinds:
        pooled = features.temporal_patches(expected, expected[::-1], kind)
        close(tensor_features.temporal_patches(found, found.flip(0), kind), pooled)


def test_what_does_not_fit_is_refused_as_numpy_does() -> None:
    maps = torch.zeros((1, 3, 3, 6))
    with pytest.raises(ValueError, match="maps of 3x3 are too small for kernel 2, margin 1"):
        tensor_features.spatial_patches(maps, 2, 1)
    with pytest.raises(ValueError, match="6 channels cannot be split into 4 equal groups"):
        tensor_features.LocalPooling(4)([maps.permute(0, 3, 1, 2)])


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("levels", [0, 2, 6])
def test_highlevel_patches(n: int, levels: int) -> None:
    clip = [*np.random.default_rng(n).normal(0, 1, (n, 6)).astype(np.float32)]
    close(tensor_features.highlevel_patch([tensor(c) for c in clip], levels), features.highlevel_patch(clip, levels))


def test_squares() -> None:
    boxes = boxes_around(np.random.default_rng(0), 9, 90, 60)
    assert np.array_equal(tensor_streams.squares(tensor(boxes), 1.1).numpy(), streams.squares(boxes, 1.1))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 2047, 2048, 2049, 5000]), st.integers(1, 40), st.sampled_from([1, 3, 24]))
def test_nearest_rows(seed: int, n_rows: int, n: int, width: int) -> None:
    """One block, one row more than a block, many; a query that is a row, and one far from all."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(0, 1, (n_rows, width)).astype(np.float32)
    queries = generator.normal(0, 1, (n, width)).astype(np.float32)
    queries[0] = rows[generator.integers(n_rows)]
    queries[-1] += 50
    expected = ExactBank(rows).search(queries)[0][:, 0]
    close(TensorBank(rows, CPU, half=False).distances(tensor(queries)), expected, 1e-4, 1e-5)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([1e-4, 1.0, 1e6]), st.sampled_from([0.0, 1e3]))
def test_rounded_products_find_a_row_that_is_nearly_as_near(seed: int, size: float, offset: float) -> None:
    """fp16 would overflow at 65504 and would drop what is small beside a common offset: neither happens."""
    generator = np.random.default_rng(seed)
    rows = ((generator.normal(0, 1, (2500, 24)) + offset) * size).astype(np.float32)
    queries = ((generator.normal(0, 1, (8, 24)) + offset) * size).astype(np.float32)
    gaps = queries[:, None].astype(np.float64) - rows
    expected = np.sqrt((gaps * gaps).sum(axis=2)).min(axis=1)
    found = TensorBank(rows, CPU, half=True).distances(tensor(queries)).numpy()
    assert np.all(found >= expected * (1 - 1e-5)) and np.all(found <= expected * 1.005)


def test_queries_of_another_width_are_refused() -> None:
    bank = TensorBank(np.zeros((3, 4), np.float32), CPU, half=False)
    with pytest.raises(ValueError, match=r"shape \(n, 4\), not \(2, 5\)"):
        bank.distances(torch.zeros((2, 5)))


@settings(deadline=None)
@given(st.lists(st.sampled_from([(3,), (2, 5), (1, 1, 1), (0, 4)]), min_size=1, max_size=5), SEEDS)
def test_downloads_are_what_was_there(shapes: list[tuple[int, ...]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    kinds = [np.uint8, np.float32, np.bool_, np.int64]
    arrays = [generator.integers(0, 2, shape).astype(generator.choice(kinds)) for shape in shapes]
    found = transfer.download([tensor(array) for array in arrays])
    for one, other in zip(found, arrays, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other) and one.flags.writeable and one.flags.aligned


def test_an_upload_takes_any_array_and_keeps_nothing_of_it() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    image.flags.writeable = False
    flipped = tensor(image[:, ::-1])
    assert np.array_equal(flipped.numpy(), image[:, ::-1])
    changed = np.zeros(3, np.float32)
    there = tensor(changed)
    changed[:] = 1
    assert not there.any()


def test_few_sizes_of_batches() -> None:
    sizes = [tensor_features.batch_size(n) for n in range(1, 700)]
    assert all(n <= size and size <= max(n + 1, 1.5 * n) for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) == 19 and sizes[:8] == [1, 2, 3, 4, 6, 6, 8, 8]
