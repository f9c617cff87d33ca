"""A unit learns its own normal view: the derived bundle is as large, calmer, self-tested, and can be taken back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_parts.pictures import frame, picture
from tiny import Outcome, clip_frames

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import BundleFormatError, SourceError
from edge_vad.learning import Learned, Learner
from edge_vad.profile import load_profile
from edge_vad.store import Store
from edge_vad.trust import UNCHECKED
from edge_vad.types import Frame

Cli = Callable[..., Outcome]
PART_S = 4.0
SECONDS = 20


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Footage of minutes would take minutes to draw."""
    monkeypatch.setattr("edge_vad.learning.PART_S", PART_S)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def seen() -> list[Frame]:
    """What the unit sees where it hangs: the same street with other traffic."""
    return clip_frames(10 * SECONDS, seed=9)


def dim(frames: list[Frame]) -> list[Frame]:
    """The same at dusk, through a sensor whose noise the bundle has never seen."""
    changed = []
    for one in frames:
        noise = np.random.default_rng(one.index).integers(-28, 29, one.image.shape)
        image = np.clip(one.image + noise, 0, 255).astype(np.uint8)
        changed.append(Frame(image, np.ascontiguousarray(image[..., 1]), one.timestamp, one.index))
    return changed


def learn(bundle: Bundle, frames: list[Frame], out: Path, *, include_events: bool = False) -> Learned:
    learner = Learner(bundle, load_profile("desktop_cpu"), include_events=include_events)
    for one in frames:
        learner.see(one)
    return learner.derive(out)


def alarm_part(bundle: Bundle, frames: list[Frame]) -> float:
    detector = Detector.open(bundle)
    scores = [detector.process(one).score for one in frames]
    return float(np.mean([score >= 1.0 for score in scores[20:]]))


def peak(bundle: Bundle, frames: list[Frame]) -> float:
    detector = Detector.open(bundle)
    return max(detector.process(one).score for one in frames)


@pytest.fixture(scope="module")
def learned(bundle: Bundle, seen: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """From dusk, all of which is normal there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_vad.learning.PART_S", PART_S)
        out = tmp_path_factory.mktemp("learned") / "learned.evb"
        return learn(bundle, dim(seen), out, include_events=True)


def test_the_banks_change_and_stay_as_large(bundle: Bundle, learned: Learned) -> None:
    for name in bundle.bank_names:
        old, new = bundle.rows(name), learned.bundle.rows(name)
        assert new.shape == old.shape
        n_new, n_rows = learned.rows[name]
        assert n_rows == len(old)
        assert (new != old).any() == (n_new > 0)
    assert learned.rows["spatial"][0] > 0
    assert learned.parts >= 3 and learned.parts_left_out == 0
    assert learned.minutes == pytest.approx(SECONDS / 60, abs=0.02)


def test_alarms_become_fewer_on_what_was_learned_and_on_what_follows(bundle: Bundle, learned: Learned) -> None:
    after = dim(clip_frames(60, seed=10))
    before_part, after_part = alarm_part(bundle, after), alarm_part(learned.bundle, after)
    assert learned.alarm_part_before > 0.5 > learned.alarm_part_after
    assert before_part > 0.5 > after_part


def test_what_is_no_street_still_raises_alarms(learned: Learned) -> None:
    strange = [frame(picture("strange", i), 0.1 * i, i) for i in range(40)]
    assert alarm_part(learned.bundle, strange) > 0.5


def test_the_result_is_a_bundle_like_any_other(bundle: Bundle, learned: Learned, cli: Cli, tmp_path: Path) -> None:
    """Read again from its file, verified, self-tested, and it says where it comes from."""
    manifest, before = learned.bundle.manifest, bundle.manifest
    assert learned.bundle.id != bundle.id
    assert json.loads(learned.bundle.members["manifest.json"])["derived_from"] == bundle.id
    assert "learn" in manifest.written_by
    assert (manifest.name, manifest.serial) == (before.name, before.serial)
    assert manifest.footage.clips == before.footage.clips + 1
    Detector.open(learned.bundle)  # with its self-test


def test_the_drift_of_each_component_is_told(bundle: Bundle, learned: Learned, seen: list[Frame], tmp_path: Path) -> None:
    same = learn(bundle, seen, tmp_path / "same.evb", include_events=True)
    assert set(learned.drift) == set(same.drift) and "spatial" in same.drift
    assert all(np.isfinite(value) for value in learned.drift.values())
    assert max(abs(v) for v in same.drift.values()) < max(abs(v) for v in learned.drift.values())
    assert same.drift["spatial"] < 0 < learned.drift["spatial"]


def test_stretches_with_events_are_left_out_unless_they_are_asked_for(
    bundle: Bundle, seen: list[Frame], tmp_path: Path
) -> None:
    disturbed = list(seen)
    for i in range(90, 105):
        disturbed[i] = frame(picture("strange", i), seen[i].timestamp, i)
    careful = learn(bundle, disturbed, tmp_path / "careful.evb")
    assert careful.parts_left_out >= 1 and careful.parts >= 3
    greedy = learn(bundle, disturbed, tmp_path / "greedy.evb", include_events=True)
    assert greedy.parts_left_out == 0 and greedy.parts == careful.parts + careful.parts_left_out
    strange = [frame(picture("strange", i), 0.1 * i, i) for i in range(30)]
    assert peak(careful.bundle, strange) > 1.0 > peak(greedy.bundle, strange), "one of them has learned it"


def test_too_little_footage_is_one_clear_error(bundle: Bundle, seen: list[Frame], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^2 stretches of 4 s without an event, 0 with one: too few to learn from"):
        learn(bundle, seen[:85], tmp_path / "out.evb", include_events=True)
    with pytest.raises(SourceError, match="^0 stretches"):
        learn(bundle, [], tmp_path / "out.evb")
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_a_gap_closes_a_stretch(bundle: Bundle, seen: list[Frame], tmp_path: Path) -> None:
    """Temporal features must not reach over it; a stretch of less than half the length is dropped."""
    learner = Learner(bundle, load_profile("desktop_cpu"), include_events=True)
    for one in seen[:150]:
        if one.index % 15 == 0:
            learner.gap()
        learner.see(one)
    with pytest.raises(SourceError, match="^0 stretches"):
        learner.derive(tmp_path / "out.evb")


def test_memory_stays_bounded_however_long_it_watches(
    bundle: Bundle, seen: list[Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_vad.learning.PART_S", 1.0)
    monkeypatch.setattr("edge_vad.learning.MAX_PARTS", 6)
    learner = Learner(bundle, load_profile("desktop_cpu"), include_events=True)
    kept = []
    for one in seen:
        learner.see(one)
        kept.append(len(learner._parts))
    assert max(kept) == 6 and len(learner._coresets) > 12, "coresets of all, features of some"
    assert {origin for origin in learner._origins if origin is not None} == set(range(len(learner._parts)))
    learned = learner.derive(tmp_path / "out.evb")
    assert learned.parts <= 7
    Detector.open(learned.bundle)


def test_a_bundle_without_memory_is_refused(bundle: Bundle) -> None:
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, method="other"))
    with pytest.raises(BundleFormatError, match="only bundles of videopatchcore learn on site"):
        Learner(other, load_profile("desktop_cpu"))


# The command


@pytest.fixture(scope="module")
def site(seen: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the unit sees, as stored footage."""
    folder = tmp_path_factory.mktemp("site") / "clip"
    folder.mkdir()
    for one in seen[:112]:
        cv2.imwrite(str(folder / f"{one.index:03d}.png"), one.image[..., ::-1])
    return folder


@pytest.fixture
def store(tiny_bundle: Path, tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.activate(store.install(tiny_bundle))
    store.confirm()
    return store


def test_learning_into_a_store_activates_on_trial_and_can_be_taken_back(
    cli: Cli, store: Store, site: Path, bundle: Bundle
) -> None:
    said = cli("learn", "--source", site, "--store", store.folder, "--include-events", "--activate")
    assert said.code == 0, said.err
    assert [line.split()[0] for line in said.out.splitlines()] == ["watched", "drift", "alarms", "new", "installed"]
    assert store.current != bundle.id and store.previous == bundle.id and store.attempts_made == 0
    assert f"installed {str(store.current)[:12]}; runs from the next start on, on trial" in said.out
    assert json.loads(store.load_current().members["manifest.json"])["derived_from"] == bundle.id
    ran = cli("run", "--store", store.folder, "--source", site, "--sink", "jsonl:/dev/null", "--set", "store.confirm_s=2")
    assert ran.code == 0 and store.attempts_made is None
    back = cli("store", "rollback", "--store", store.folder)
    assert back.code == 0, back.err
    assert store.current == bundle.id


def test_without_activation_nothing_that_runs_changes(cli: Cli, store: Store, site: Path, bundle: Bundle) -> None:
    said = cli("learn", "--source", site, "--store", store.folder, "--include-events", "--minutes", 0.21)
    assert said.code == 0, said.err
    assert store.current == bundle.id and store.attempts_made is None
    new = said.out.split("edge-vad store activate ")[1].strip()
    assert store.find(new) != bundle.id


def test_where_bundles_must_be_signed_the_units_own_key_signs_what_it_learned(
    cli: Cli, tiny_bundle: Path, site: Path, tmp_path: Path
) -> None:
    key, trusted, signed = tmp_path / "unit.key", tmp_path / "trusted.d", tmp_path / "signed.evb"
    assert cli("bundle", "keygen", "--out", tmp_path / "unit").code == 0
    trusted.mkdir()
    (trusted / "unit.pub").write_bytes((tmp_path / "unit.pub").read_bytes())
    signed.write_bytes(tiny_bundle.read_bytes())
    assert cli("bundle", "sign", signed, "--key", key).code == 0
    store = Store(tmp_path / "store")
    store.activate(store.install(signed))
    policy = ("--set", "trust.signature=required", "--set", f"trust.keys={trusted}")
    learn_there = ("learn", "--source", site, "--store", store.folder, "--include-events", *policy)
    refused = cli(*learn_there, "--minutes", 600)
    assert refused.code == 1 and "bundles must be signed here" in refused.err, "before it watches, not after"
    said = cli(*learn_there, "--key", key, "--activate")
    assert said.code == 0, said.err
    assert store.load_current().signature is not None
    assert cli("run", "--store", store.folder, "--source", site, "--sink", "jsonl:/dev/null", *policy).code == 0


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 2, "name --store, or --bundle with --out"),
        (("--bundle", "BUNDLE"), 2, "name --store, or --bundle with --out"),
        (("--bundle", "BUNDLE", "--store", "--out", "o.evb"), 2, "name --store, or --bundle with --out"),
        (("--bundle", "BUNDLE", "--out", "OUT", "--minutes", "0"), 2, "--minutes must be positive"),
        (("--bundle", "BUNDLE", "--out", "OUT", "--activate"), 2, "--activate needs a --store"),
        (("--bundle", "BUNDLE", "--out", "/nowhere/o.evb"), 1, "/nowhere"),
        (("--bundle", "BUNDLE", "--out", "OUT", "--minutes", "0.05"), 1, "too few to learn from"),
        (("--store", "EMPTY"), 1, "no bundle runs; install and activate one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_learned_is_one_line(
    cli: Cli, tiny_bundle: Path, site: Path, tmp_path: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    places = {"BUNDLE": str(tiny_bundle), "OUT": str(tmp_path / "o.evb"), "EMPTY": str(tmp_path / "empty")}
    outcome = cli("learn", "--source", site, *(places.get(flag, flag) for flag in flags))
    assert outcome.code == code and said in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "o.evb").exists()


def test_a_learned_file_is_verified_when_it_is_read_again(cli: Cli, tiny_bundle: Path, site: Path, tmp_path: Path) -> None:
    out = tmp_path / "learned.evb"
    said = cli("learn", "--source", site, "--bundle", tiny_bundle, "--out", out, "--include-events")
    assert said.code == 0, said.err
    assert read_bundle(out, UNCHECKED).manifest.footage.clips == 3
    assert cli("bundle", "verify", out).code == 0


def test_footage_of_another_size_is_one_clear_error(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    where = "synthetic:seed=1,seconds=2,size=240x160"
    said = cli("learn", "--source", where, "--bundle", tiny_bundle, "--out", tmp_path / "o.evb")
    assert said.code == 1 and "frames of 240x160 pixels, the bundle was built for 180x120" in said.err
