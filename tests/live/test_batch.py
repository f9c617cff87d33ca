"""Several cameras through one encoder at once: the same results as alone, one session, and one failure stays alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from altered import altered
from live_parts.backends import Shaky
from live_parts.pictures import frame, picture
from live_stage import Stage, source, watched

from edge_vad.batch import Encoding, Steps, run_alone, run_together
from edge_vad.detector import Detector
from edge_vad.device import CameraSettings
from edge_vad.errors import BackendError, SourceError
from edge_vad.features import Encoder
from edge_vad.profile import Inference
from edge_vad.recovery import Sessions
from edge_vad.types import Frame, Result

BACKEND = "live_parts.backends:Shaky"
N_FRAMES = 26


@pytest.fixture(autouse=True)
def steady_backend() -> Iterator[None]:
    Shaky.script, Shaky.always, Shaky.n_made = [], "", 0
    yield
    Shaky.script, Shaky.always = [], ""


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(lambda kind, why: None)


def frames_of(camera: int) -> list[Frame]:
    """What a camera sees: its own piece of street, and blocks that jump about in between."""
    kinds = ["street"] * 12 + ["strange"] * 10 + ["street"] * (N_FRAMES - 22)
    return [frame(picture(kind, 7 * camera + i), 0.1 * i, i) for i, kind in enumerate(kinds)]


def open_with(sessions: Sessions, bundle: Path) -> Detector:
    return Detector.open(str(bundle), backend=sessions.backend(Inference(BACKEND)))


def together(detectors: list[Detector], footage: list[list[Frame]]) -> list[list[Result]]:
    """Results of each detector, frame by frame in one batch."""
    rows = []
    for frames in zip(*footage, strict=True):
        found = run_together([d.steps(f) for d, f in zip(detectors, frames, strict=True)])
        assert not [r for r in found if isinstance(r, Exception)]
        rows.append([r for r in found if not isinstance(r, Exception)])
    return [list(column) for column in zip(*rows, strict=True)]


def check_same(one: list[Result], other: list[Result]) -> None:
    """The same to the last bits of a float32: a matrix product may sum in another order for another batch."""
    for a, b in zip(one, other, strict=True):
        assert a.score == pytest.approx(b.score, rel=1e-4, abs=1e-4)
        assert a.components == pytest.approx(b.components, rel=1e-4, abs=1e-4)
        assert [(e.kind, e.id, e.start_frame) for e in a.events] == [(e.kind, e.id, e.start_frame) for e in b.events]
        assert len(a.regions) == len(b.regions)


@pytest.mark.parametrize("n_cameras", [1, 3])
def test_cameras_together_score_as_they_do_alone(sessions: Sessions, tiny_bundle: Path, n_cameras: int) -> None:
    footage = [frames_of(camera) for camera in range(n_cameras)]
    detectors = [open_with(sessions, tiny_bundle) for _ in footage]
    found = together(detectors, footage)
    assert Shaky.n_made == 1, "one session for all"
    for frames, results in zip(footage, found, strict=True):
        alone = open_with(Sessions(lambda kind, why: None), tiny_bundle)
        check_same(results, [alone.process(f) for f in frames])
    assert any(e.kind == "start" for results in found for r in results for e in r.events), "there was something to see"


def test_other_bundles_with_the_same_encoder_share_its_session(
    sessions: Sessions, tiny_bundle: Path, tmp_path: Path
) -> None:
    second = altered(tiny_bundle, tmp_path / "second.evb", serial=2)
    footage = [frames_of(0), frames_of(1)]
    found = together([open_with(sessions, tiny_bundle), open_with(sessions, second)], footage)
    assert Shaky.n_made == 1
    alone = Detector.open(str(second))
    check_same(found[1], [alone.process(f) for f in footage[1]])


def test_cameras_of_several_sessions_each_get_their_own(tiny_bundle: Path) -> None:
    footage = [frames_of(camera) for camera in range(2)]
    detectors = [open_with(Sessions(lambda kind, why: None), tiny_bundle) for _ in footage]
    assert Shaky.n_made == 2
    for frames, results in zip(footage, together(detectors, footage), strict=True):
        alone = open_with(Sessions(lambda kind, why: None), tiny_bundle)
        assert [r.score for r in results] == [alone.process(f).score for f in frames], "alone in its batch: bit by bit"


class Counting(Encoder):
    """An encoder that only counts: each picture's mean is its feature."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[int] = []
        self._error = error

    def same_session(self, other: Encoder) -> bool:
        return self is other

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        self.calls.append(len(pictures))
        if self._error:
            raise self._error
        return [pictures.mean(axis=(1, 2, 3), keepdims=True)]


def work(encoder: Encoder, *values: int, side: int = 4, fails: Exception | None = None) -> Steps[list[float]]:
    """Asks for one encoding per value, with as many pictures as the value says."""
    found: list[float] = []
    for value in values:
        taps = yield Encoding(encoder, np.full((value, side, side, 3), value, np.uint8), {}, "encoder")
        assert taps[0].shape == (value, 1, 1, 1)
        found.append(float(taps[0].mean()))
    if fails:
        raise fails
    return found


def test_works_of_any_length_are_brought_together_step_by_step() -> None:
    encoder = Counting()
    lists = [(1, 2, 3), (4,), (), (5, 6)]
    found = run_together([work(encoder, *values) for values in lists])
    assert found == [[float(v) for v in values] for values in lists]
    assert encoder.calls == [1 + 4 + 5, 2 + 6, 3]
    assert run_alone(work(encoder, 3, 1)) == [3.0, 1.0]


def test_pictures_of_another_size_or_session_are_not_mixed() -> None:
    one, other = Counting(), Counting()
    found = run_together([work(one, 2), work(one, 3, side=8), work(other, 4), work(one, 5)])
    assert found == [[2.0], [3.0], [4.0], [5.0]]
    assert sorted(one.calls) == [3, 7] and other.calls == [4]


@pytest.mark.parametrize("error", [SourceError("another size"), ZeroDivisionError("a bug"), MemoryError()])
def test_a_work_that_fails_leaves_the_others_alone(error: Exception) -> None:
    encoder = Counting()
    found = run_together([work(encoder, 1, 1), work(encoder, 2, fails=error), work(encoder, 3, 3)])
    assert found == [[1.0, 1.0], error, [3.0, 3.0]]


@pytest.mark.parametrize("error", [BackendError("gone"), RuntimeError("a driver's own"), MemoryError()])
def test_an_encoder_that_fails_costs_those_whose_pictures_it_had(error: Exception) -> None:
    """Whatever it raises: it must never end the loop over all cameras."""
    good, bad = Counting(), Counting(error)
    found = run_together([work(good, 1), work(bad, 2), work(good, 3), work(bad, 4)])
    assert found == [[1.0], error, [3.0], error]


def test_cpu_time_is_shared_by_the_number_of_pictures() -> None:
    times: list[dict[str, float]] = [{}, {}]

    def one(n: int, ms: dict[str, float]) -> Steps[int]:
        yield Encoding(encoder, np.zeros((n, 256, 256, 3), np.uint8), ms, "encoder")
        return n

    encoder = Counting()
    assert run_together([one(30, times[0]), one(10, times[1])]) == [30, 10]
    assert times[0]["encoder"] == pytest.approx(3 * times[1]["encoder"]) and times[1]["encoder"] > 0


def test_two_cameras_of_a_unit_share_one_session_and_go_through_it_in_one_batch(
    stage: Stage, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    run = Shaky.run

    def counted(self: Shaky, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        batches.append(len(next(iter(inputs.values()))))
        return run(self, inputs)

    cameras = {name: CameraSettings(source(name), str(tiny_bundle)) for name in ("gate", "door", "yard")}
    with watched(tmp_path, cameras, f"inference.backend={BACKEND}") as unit:
        assert Shaky.n_made == 1
        monkeypatch.setattr(Shaky, "run", counted)
        for name in cameras:
            stage.always[source(name)] = "strange"
        unit.until_scored(8)
        assert 0 < len(batches) <= 12, "one run for three cameras, not one for each"
