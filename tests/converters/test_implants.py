"""Implants: of the kind that they claim, made up or normal as they say, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
from edge_vad.converters import implants
from edge_vad.converters.implants import SEEN, Implanted, implanted

from edge_vad.types import UInt8

N, HEIGHT, WIDTH = 5, 64, 96


def walking(first: int) -> UInt8:
    """A grey texture over which a bright block walks, three pixels a frame: (5, 64, 96)."""
    texture = np.random.default_rng(0).integers(90, 110, (HEIGHT, WIDTH), dtype=np.uint8)
    clip = np.repeat(texture[None], N, axis=0)
    for i, frame in enumerate(clip):
        frame[30:46, first + 3 * i : first + 3 * i + 8] = 220
    return clip


def made(kind: str, windows: UInt8, monkeypatch: pytest.MonkeyPatch) -> Implanted:
    """Twenty times the windows with implants of one kind."""
    monkeypatch.setattr(implants, "KINDS", (kind,))
    found = [implanted(np.random.default_rng([1, i]), windows) for i in range(20)]
    return Implanted(np.concatenate([one.frames for one in found]), np.concatenate([one.strange for one in found]))


def test_another_moment_of_the_same_place_is_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.stack([walking(20), walking(50)])
    found = made("usual", windows, monkeypatch)
    assert found.frames.shape == (40, SEEN, HEIGHT, WIDTH) and found.frames.dtype == np.float32
    assert (found.frames != np.tile(windows[:, -SEEN:], (20, 1, 1, 1))).any() and not found.strange.any()


def test_what_hurries_ends_where_it_was_and_has_come_from_further_away(monkeypatch: pytest.MonkeyPatch) -> None:
    window = walking(20)
    found = made("hurried", window[None], monkeypatch)
    assert np.allclose(found.frames[:, -1], window[-1], atol=1e-3)
    strange = found.strange.max(axis=(1, 2)) > 3
    assert 5 < strange.sum() < 20, "some windows have no implant"
    earlier = window[0].astype(np.float32) - window[2]  # twice as fast, the oldest of the three is the window's first
    touched = (found.frames[:, 0] - window[2])[strange]
    assert all(np.corrcoef(one.ravel(), earlier.ravel())[0, 1] > 0.5 for one in touched)
    assert not found.strange[:, :, 60:].any(), "nothing moves there at any speed"


@pytest.mark.parametrize("kind", ["resized", "sliding", "painted"])
def test_what_is_made_up_is_strange_where_it_differs_and_nowhere_else(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    window = walking(30)
    found = made(kind, window[None], monkeypatch)
    off = np.abs(found.frames - window[-SEEN:].astype(np.float32)).mean(axis=1)
    assert (found.strange.max(axis=(1, 2)) > 10).sum() >= 8
    assert not off[found.strange == 0].any() and found.frames.min() >= 0 and found.frames.max() <= 255
    assert (off > 0).mean() < 0.4, "most of the picture stays as it was"


def test_what_glides_moves_on_and_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    still = np.repeat(walking(30)[:1], N, axis=0)
    found = made("sliding", still[None], monkeypatch)
    moved = np.abs(np.diff(found.frames, axis=1)).max(axis=(1, 2, 3))
    assert (moved > 20).sum() >= 5, "in a picture that stands still it is all that moves"


def test_normal_implants_cover_what_was_there_and_walk_on_or_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implants, "_soft_mask", lambda *_: (np.ones((HEIGHT, WIDTH), np.float32), (30, 30)))
    donor, n_still = walking(50), 0
    for seed in range(30):
        frames, alpha = implants._usual(np.random.default_rng(seed), walking(20)[-SEEN:].astype(np.float32), donor)
        still = np.array_equal(frames[0], donor[-1])
        assert np.array_equal(frames, np.stack([donor[-1]] * SEEN) if still else donor[-SEEN:]) and (alpha == 1).all()
        n_still += still
    assert 3 < n_still < 20


def test_a_seed_decides() -> None:
    windows = np.stack([walking(20), walking(40)])
    one, again, other = (implanted(np.random.default_rng(seed), windows) for seed in (3, 3, 4))
    assert np.array_equal(one.frames, again.frames) and np.array_equal(one.strange, again.strange)
    assert not np.array_equal(one.frames, other.frames)
