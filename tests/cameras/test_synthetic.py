"""The synthetic street: the same bytes everywhere, and truth that fits the pixels."""

from __future__ import annotations

import itertools
import json
import math
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from edge_vad.cameras import open_camera
from edge_vad.cameras._street.scene import VIEWS, Ground
from edge_vad.cameras._street.traffic import Traffic
from edge_vad.cameras.synthetic import (
    ANOMALIES,
    MIN_VISIBLE,
    NOISE_LIMIT,
    SyntheticStreet,
    luma_of,
    parse,
    write_dataset,
)
from edge_vad.errors import OutputError, SourceError
from edge_vad.footage import find_clips

SMALL = "size=180x120"


def traffic_of(view: int, kinds: tuple[str, ...]) -> Traffic:
    return Traffic(VIEWS[view], Ground.of(VIEWS[view], (360, 240)), 0, kinds)


def test_the_same_location_gives_the_same_bytes_on_every_machine() -> None:
    """Recorded once, and found equal under NumPy 1.26 and 2.4; drawing with sin, exp or long sums would break it."""
    street = SyntheticStreet("seed=3,seconds=60,view=1")
    assert [zlib.crc32(street.frame(index).image.tobytes()) for index in (0, 150)] == [0x31403ACE, 0xEB50315F]


def test_frames_do_not_depend_on_those_before_them() -> None:
    street = SyntheticStreet(f"seed=4,seconds=2,{SMALL}")
    in_order = [frame.image for frame in street.frames()]
    street.frame(9000)
    assert np.array_equal(street.frame(13).image, in_order[13])


def test_frames_have_the_form_of_every_camera() -> None:
    with open_camera(f"synthetic:seconds=1,fps=5,{SMALL}") as street:
        frames = list(street.frames())
    assert street.n_frames == len(frames) == 5
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.timestamp for frame in frames] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert frames[0].image.shape == (120, 180, 3) and frames[0].image.dtype == np.uint8
    assert frames[0].luma.shape == (120, 180) and frames[0].luma.dtype == np.uint8


def test_luma_is_that_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    assert np.array_equal(luma_of(image), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def test_grey_pictures_have_three_equal_channels() -> None:
    frame = SyntheticStreet(f"grey=1,{SMALL}").frame(3)
    assert all(np.array_equal(frame.image[..., channel], frame.luma) for channel in range(3))


def test_seeds_differ_in_traffic_but_not_in_the_street() -> None:
    one, other = (SyntheticStreet(f"seed={seed},anomalies=none,{SMALL}").frame(50).image for seed in (1, 2))
    far_apart = np.abs(one.astype(int) - other).max(axis=2) > 4 * NOISE_LIMIT
    assert 0.002 < far_apart.mean() < 0.2


@pytest.mark.parametrize("view", range(5))
def test_every_view_has_people_on_it_and_every_anomaly_in_it(view: int) -> None:
    street = SyntheticStreet(f"view={view},{SMALL}")
    present = [len(traffic_of(view, ()).actors(second)) for second in range(0, 120, 10)]
    assert min(present) >= 1 and np.mean(present) >= 5
    seen = {one.kind for index in range(0, 1800, 15) for one in street.truth(index)}
    assert seen == set(ANOMALIES)


def test_normal_footage_has_no_truth() -> None:
    street = SyntheticStreet(f"anomalies=none,seconds=30,{SMALL}")
    assert street.labels() == []
    assert not any(street.mask(index).any() for index in range(0, 300, 30))


def test_labels_masks_and_truth_agree_on_every_frame() -> None:
    street = SyntheticStreet(f"seed=5,seconds=30,{SMALL}")
    labelled = {frame - 1 for first, last in street.labels() for frame in range(first, last + 1)}
    assert labelled and len(labelled) < 300
    for index in range(300):
        mask, truth = street.mask(index), street.truth(index)
        assert (index in labelled) == bool(mask.any()) == bool(truth)
        assert mask.sum() == sum(one.n_pixels for one in truth)
        assert all(one.n_pixels >= MIN_VISIBLE * mask.size for one in truth)


def test_the_mask_is_where_the_picture_differs_from_one_without_the_anomaly() -> None:
    normal, street = (SyntheticStreet(f"seed=2,seconds=20,anomalies={kind},{SMALL}") for kind in ("none", "cart"))
    first, last = street.labels()[0]
    index = (first + last) // 2
    changed = np.abs(street.frame(index).image.astype(int) - normal.frame(index).image).max(axis=2) > 0
    mask = street.mask(index)
    assert (changed & mask).sum() > 0.9 * mask.sum()
    (cart,) = street.truth(index)
    x0, y0, x1, y1 = cart.box
    assert mask[y0:y1, x0:x1].sum() == cart.n_pixels == mask.sum()


def test_the_first_anomaly_leaves_normal_time_before_it() -> None:
    for seed in range(3):
        first, _ = SyntheticStreet(f"seed={seed},seconds=20,view=1,size=120x80").labels()[0]
        assert 4.9 <= (first - 1) / 10 <= 15.0


def test_walkers_walk_at_human_speed() -> None:
    traffic = traffic_of(view=0, kinds=())
    for actor in (actor for second in range(0, 60, 5) for actor in traffic.actors(second)):
        if actor.pause is None:
            t = (actor.enters + actor.leaves) / 2
            (x0, z0), (x1, z1) = actor.path.at(actor.travelled(t)), actor.path.at(actor.travelled(t + 0.1))
            assert 1.0 <= 10 * math.hypot(x1 - x0, z1 - z0) <= 2.0


def test_somebody_who_stops_stands_still_and_goes_on() -> None:
    traffic = traffic_of(view=1, kinds=())
    actor = next(a for second in range(200) for a in traffic.actors(second) if a.pause is not None)
    assert actor.pause is not None
    middle, half = actor.pause
    assert actor.travelled(actor.enters) == 0.0
    assert actor.travelled(middle - half) == pytest.approx(actor.travelled(middle + half))
    assert actor.travelled(actor.leaves) == pytest.approx(actor.path.length)


def test_nobody_walks_where_the_against_walks() -> None:
    traffic, along = traffic_of(view=3, kinds=("against",)), VIEWS[3].along
    headings: dict[str, list[float]] = {"": [], "against": []}
    for second in range(120):
        for actor in traffic.actors(second):
            direction = actor.path.direction
            headings[actor.anomaly].append(direction[0] * along[0] + direction[1] * along[1])
    assert min(headings[""]) > 0.99 and max(headings["against"]) < -0.99


def test_a_left_object_stays_where_it_was_put_down() -> None:
    street = SyntheticStreet(f"seed=1,seconds=30,anomalies=object,view=1,{SMALL}")
    boxes = [street.truth(index) for index in range(300)]
    largest = max((one for found in boxes for one in found), key=lambda one: one.n_pixels)
    whole = [one for found in boxes for one in found if one.n_pixels == largest.n_pixels and one.box == largest.box]
    assert len(whole) > 40


@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("sede=3", "did you mean 'seed'"),
        ("seed=x", "a whole number"),
        ("seed=-1", "a whole number"),
        ("seconds=0", "seconds"),
        ("seconds=nan", "seconds"),
        ("anomalies=cyclst", "did you mean 'cyclist'"),
        ("size=360", "WIDTHxHEIGHT"),
        ("size=10x10", "64 to 4096"),
        ("size=800x100", "twice as wide"),
        ("view=5", "0 to 4"),
        ("fps=0", "frame rate"),
        ("grey=yes", "0 or 1"),
        ("seed", "a whole number"),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_is_right(location: str, hint: str) -> None:
    with pytest.raises(SourceError, match=hint) as error:
        SyntheticStreet(location)
    assert "\n" not in str(error.value)


def test_options_are_read() -> None:
    options = parse(" seed=7, seconds=60 ,anomalies=cyclist+cart+cart,size=480x320,view=2,fps=12.5,grey=1")
    assert (options.seed, options.seconds, options.size, options.view) == (7, 60.0, (480, 320), 2)
    assert (options.anomalies, options.fps, options.grey) == (("cyclist", "cart"), 12.5, True)
    assert parse("").anomalies == parse("anomalies=all").anomalies == ANOMALIES


def test_the_stated_frame_rate_wins() -> None:
    street = SyntheticStreet(f"seconds=2,fps=10,{SMALL}", 5.0)
    assert (street.fps, street.n_frames) == (5.0, 10)


def test_an_endless_stream_keeps_to_its_frame_rate_and_has_no_labels() -> None:
    street = SyntheticStreet(f"fps=20,{SMALL}")
    assert street.n_frames is None
    with pytest.raises(ValueError, match="endless"):
        street.labels()
    started = time.monotonic()
    frames = list(itertools.islice(street.frames(), 9))
    assert time.monotonic() - started >= 8 / 20
    assert len(frames) == 9


def test_an_endless_stream_does_not_grow() -> None:
    traffic = traffic_of(view=1, kinds=ANOMALIES)
    early = [actor.enters for actor in traffic.actors(30.0)]
    for second in range(0, 6000, 60):
        traffic.actors(second)
    assert len(traffic._slots) <= 400 and len(traffic._incidents) <= 100
    assert [actor.enters for actor in traffic.actors(30.0)] == early


def test_a_written_dataset_is_found_and_read(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    labels = write_dataset(tmp_path / "street", n_training=1, n_testing=2, seconds=16, size=(120, 80), fps=5, view=1)
    assert json.loads((tmp_path / "street" / "labels.json").read_text()) == labels
    assert [clip.name for clip in find_clips([tmp_path / "street" / "testing" / "frames"])] == ["01", "02"]
    with open_camera(tmp_path / "street" / "training" / "frames" / "01", 5.0) as camera:
        assert camera.n_frames == 80 == len(list(camera.frames()))
    for name, label in labels.items():
        assert label["frames"] == 80 and label["anomalous_1based"]
        marked = [frame for first, last in label["anomalous_1based"] for frame in range(first, last + 1)]
        for index in range(80):
            mask = cv2.imread(str(tmp_path / "street/testing/masks" / name / f"{index:03d}.png"), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (80, 120) and bool(mask.any()) == (index + 1 in marked)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        write_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
