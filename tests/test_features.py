"""Document 000, equations 1 to 7, against loops written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vad.features import (
    Encoder,
    Preprocessing,
    global_features,
    highlevel_patch,
    local_features,
    normalised,
    spatial_patches,
    split_pooling,
    temporal_patches,
    temporal_pooling,
)

GENERATOR = np.random.default_rng(4)
FINE = GENERATOR.normal(0, 1, (2, 4, 8, 8)).astype(np.float32)
COARSE = GENERATOR.normal(0, 1, (2, 6, 4, 4)).astype(np.float32)


def pooled_3x3(plane: np.ndarray) -> np.ndarray:
    """3x3 average pooling, stride 1, the edges repeated."""
    rows, columns = plane.shape
    out = np.zeros((rows, columns))
    for y in range(rows):
        for x in range(columns):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    out[y, x] += plane[min(max(y + dy, 0), rows - 1), min(max(x + dx, 0), columns - 1)] / 9
    return out


def halved(plane: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 cells."""
    return np.array([[plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(4)] for y in range(4)])


def test_local_features_are_equation_1() -> None:
    found = local_features([FINE, COARSE])
    assert found.shape == (2, 4, 4, 10)
    for n in range(2):
        for c in range(4):
            np.testing.assert_allclose(found[n, :, :, c], halved(pooled_3x3(FINE[n, c])), atol=1e-5)
        for c in range(6):
            np.testing.assert_allclose(found[n, :, :, 4 + c], pooled_3x3(COARSE[n, c]), atol=1e-5)


def test_constant_maps_stay_constant_at_every_size() -> None:
    for fine, coarse in ((8, 4), (14, 7), (7, 4), (5, 5), (9, 2)):
        taps = [np.full((1, 1, side, side), 3.0, np.float32) for side in (fine, coarse)]
        np.testing.assert_allclose(local_features(taps), 3.0, rtol=1e-5)


def test_split_pooling_averages_neighbouring_channels() -> None:
    rows = np.array([[1, 3, 5, 7, 10, 20]], np.float32)
    assert split_pooling(rows, 3).tolist() == [[2, 6, 15]]
    assert split_pooling(rows, 6).tolist() == rows.tolist()
    with pytest.raises(ValueError, match="6 channels cannot be split into 4"):
        split_pooling(rows, 4)
    found = local_features([FINE, COARSE], split_channels=5)
    np.testing.assert_allclose(found, local_features([FINE, COARSE]).reshape(2, 4, 4, 5, 2).mean(axis=-1), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("last", [5.0, 2.0]), ("average", [3.0, 4.0]), ("maximum", [5.0, 9.0]), ("average+maximum", [8.0, 13.0])],
)
def test_temporal_pooling_by_hand(kind: str, wanted: list[float]) -> None:
    clip = [np.array(values, np.float32) for values in ([1, 9], [3, 1], [5, 2])]
    assert temporal_pooling(clip, kind).tolist() == wanted  # type: ignore[arg-type]


def test_temporal_pooling_of_one_frame() -> None:
    one = [np.array([2.0], np.float32)]
    assert [temporal_pooling(one, k).tolist() for k in ("last", "average", "maximum", "average+maximum")] == [
        [2],
        [2],
        [2],
        [4],
    ]


def test_spatial_patches_are_means_of_every_window() -> None:
    features = GENERATOR.normal(0, 1, (2, 4, 5, 3)).astype(np.float32)
    found = spatial_patches(features, kernel=2)
    assert found.shape == (2, 12, 3)
    wanted = [features[1, y : y + 2, x : x + 2].mean(axis=(0, 1)) for y in range(3) for x in range(4)]
    np.testing.assert_allclose(found[1], wanted, atol=1e-6)


def test_the_margin_leaves_columns_out_and_keeps_rows() -> None:
    features = GENERATOR.normal(0, 1, (1, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(spatial_patches(features, 2, margin=1), spatial_patches(features[:, :, 1:3], 2))
    assert spatial_patches(features, 2, margin=1).shape == (1, 3, 3)


def test_temporal_patches_are_equations_5_and_6() -> None:
    now, before = GENERATOR.normal(0, 1, (2, 2, 3, 3, 4)).astype(np.float32)
    for pooling, reduce in (("average", np.mean), ("maximum", np.max)):
        found = temporal_patches(now, before, pooling)  # type: ignore[arg-type]
        assert found.shape == (2, 1, 4)
        wanted = [
            [reduce([abs(now[n, y, x, c] - before[n, y, x, c]) for y in range(3) for x in range(3)]) for c in range(4)]
            for n in range(2)
        ]
        np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-5)
    assert not temporal_patches(now, now, "average").any()


def test_global_features_are_average_and_maximum_of_each_tap() -> None:
    found = global_features([FINE, COARSE])
    assert found.shape == (2, 10)
    assert found[1, 2] == pytest.approx(FINE[1, 2].mean() + FINE[1, 2].max(), rel=1e-5)
    assert found[0, 9] == pytest.approx(COARSE[0, 5].mean() + COARSE[0, 5].max(), rel=1e-5)


def test_the_pyramid_is_equation_7() -> None:
    clip = [np.array([value, -value], np.float32) for value in (9, 5, 1)]
    assert highlevel_patch(clip, 0).tolist() == [1, -1]
    assert highlevel_patch(clip, 1).tolist() == [1 + 5, -1 - 1]
    assert highlevel_patch(clip, 2).tolist() == [1 + 5 + 9, -1 - 1 - 1]
    assert highlevel_patch(clip[-1:], 2).tolist() == [3, -3]  # a clip shorter than a level repeats its oldest frame
    assert clip[-1].tolist() == [1, -1]


def test_normalised_rows_have_length_1() -> None:
    found = normalised(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_encoder_sees_normalised_planes_in_its_colour_order(order: str) -> None:
    class Echo:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"a": inputs["image"], "b": inputs["image"] * 2, "unused": inputs["image"]}

    preprocessing = Preprocessing((10.0, 20.0, 30.0), (2.0, 4.0, 5.0), order, 1, ("b", "a"), "image")  # type: ignore[arg-type]
    pictures = GENERATOR.integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    b, a = Encoder(Echo(), preprocessing)(pictures)  # type: ignore[arg-type]
    seen = pictures if order == "RGB" else pictures[..., ::-1]
    wanted = (seen.astype(float) - [10, 20, 30]) / [2, 4, 5]
    np.testing.assert_allclose(a, wanted.transpose(0, 3, 1, 2), atol=1e-4)
    np.testing.assert_allclose(b, 2 * a)
