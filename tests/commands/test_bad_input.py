"""Wrong input on the command line: exit code 1 (2 for usage), one line that names the thing, nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from tiny import Outcome

from edge_vad import archive
from edge_vad.bundle import read_bundle

Cli = Callable[..., Outcome]
Build = Callable[..., Outcome]


@pytest.fixture
def build(cli: Cli, tiny_encoder: Path, tmp_path: Path) -> Build:
    """Builds out/site.evb of the footage; whatever happens, nothing else may lie in out/."""
    out = tmp_path / "out"
    out.mkdir()

    def run(normal: Path, *more: str) -> Outcome:
        said = cli(*tiny.build_arguments(normal, out / "site.evb", tiny_encoder, *more))
        assert [path.name for path in out.iterdir()] == ([] if said.code else ["site.evb"])
        return said

    return run


@pytest.fixture
def process(tiny_encoder: Path, tmp_path: Path) -> Callable[[Path], Outcome]:
    """Builds in a process of its own: native libraries write to standard error there as they do for a user."""

    def run(normal: Path) -> Outcome:
        arguments = tiny.build_arguments(normal, tmp_path / "site.evb", tiny_encoder)
        command = [sys.executable, "-c", "import sys; from edge_vad.cli import main; sys.exit(main())", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert not (tmp_path / "site.evb").exists()
        told = ("clips, ", "an object is ", "pixels enter it")  # progress; the error is the only other line
        errors = [line for line in ended.stderr.splitlines(keepends=True) if not any(word in line for word in told)]
        return Outcome(ended.returncode, ended.stdout, "".join(errors))

    return run


def refused(said: Outcome, *words: object, code: int = 1) -> None:
    """The command failed on one line of standard error that holds every word."""
    assert said.code == code, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("edge-vad")
    assert "Traceback" not in said.err
    for word in words:
        assert str(word) in said.err


# Footage


def test_no_such_path(build: Build, tmp_path: Path) -> None:
    refused(build(tmp_path / "nowhere"), tmp_path / "nowhere", "no such file or folder")


def test_an_empty_folder(build: Build, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(build(tmp_path / "empty"), tmp_path / "empty", "no footage", "wanted: pictures")


def test_a_folder_with_one_frame(build: Build, tmp_path: Path) -> None:
    tiny.write_clip(tmp_path / "single", 1)
    refused(build(tmp_path / "single"), tmp_path / "single", "1 frames", "at least 20")


def test_normal_footage_shorter_than_a_clip(build: Build, footage: Path, tmp_path: Path) -> None:
    tiny.write_clip(tmp_path / "clips" / "short", 19)
    shutil.copytree(footage / "01", tmp_path / "clips" / "long")
    refused(build(tmp_path / "clips"), tmp_path / "clips" / "short", "19 frames", "at least 20")


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_cut_in_half(suffix: str, process: Callable[[Path], Outcome], tmp_path: Path) -> None:
    path = tiny.write_video(tmp_path / f"cut{suffix}", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(process(path), path, "truncated")
    assert re.search("copy|record", process(path).err)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_whole_video_is_footage(suffix: str, build: Build, tmp_path: Path) -> None:
    assert build(tiny.write_video(tmp_path / f"whole{suffix}", 40)).code == 0


def test_a_video_of_nothing(process: Callable[[Path], Outcome], tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    refused(process(tmp_path / "empty.mp4"), tmp_path / "empty.mp4", "not a readable video")


def test_a_file_that_is_no_footage(build: Build, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("normal")
    refused(build(tmp_path / "notes.txt"), tmp_path / "notes.txt", "not a video", ".mp4")


def test_sizes_mixed_in_a_folder(build: Build, tmp_path: Path) -> None:
    clip = tiny.write_clip(tmp_path / "mixed", 30)
    cv2.imwrite(str(clip / "025.png"), np.zeros((100, 100, 3), np.uint8))
    refused(build(clip), clip / "025.png", "100x100", "180x120", "one size")


def test_sizes_mixed_between_clips(build: Build, tmp_path: Path) -> None:
    tiny.write_clip(tmp_path / "clips" / "one", 30)
    tiny.write_clip(tmp_path / "clips" / "other", 30, size=(200, 120))
    refused(build(tmp_path / "clips"), "180x120 (one)", "200x120 (other)", "one camera")


def test_grey_pictures_work(build: Build, footage: Path, tmp_path: Path) -> None:
    for path in sorted((footage / "01").iterdir()):
        (tmp_path / "grey").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "grey" / path.name), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert build(tmp_path / "grey").code == 0


def test_16_bit_pictures(build: Build, tmp_path: Path) -> None:
    clip = tiny.write_clip(tmp_path / "deep", 30)
    cv2.imwrite(str(clip / "000.png"), np.zeros((120, 180, 3), np.uint16))
    refused(build(clip), clip / "000.png", "uint16", "8-bit", "convert")


def test_a_damaged_picture(process: Callable[[Path], Outcome], tmp_path: Path) -> None:
    clip = tiny.write_clip(tmp_path / "damaged", 30)
    (clip / "007.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(process(clip), clip / "007.png", "not a readable picture")


def test_footage_in_which_nothing_moves(build: Build, tmp_path: Path) -> None:
    for index in range(30):
        (tmp_path / "still").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "still" / f"{index}.png"), np.full((120, 180, 3), 90, np.uint8))
    refused(build(tmp_path / "still"), "nothing moves", "film longer")


def test_a_source_of_another_size_than_the_bundle(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    clip = tiny.write_clip(tmp_path / "wide", 5, size=(200, 120))
    refused(cli("run", "--bundle", tiny_bundle, "--source", clip), "200x120", "built for 180x120")


def test_a_source_that_is_not_there(cli: Cli, tiny_bundle: Path) -> None:
    refused(cli("run", "--bundle", tiny_bundle, "--source", "nowhere.mp4"), "nowhere.mp4", "no such file", "synthetic")
    refused(cli("run", "--bundle", tiny_bundle, "--source", "synthetic:sed=3"), "'sed'", "did you mean 'seed'")


# Bundles


def test_a_bundle_that_is_not_there(cli: Cli) -> None:
    refused(cli("bundle", "inspect", "nowhere.evb"), "nowhere.evb", "No such file")


def test_a_zip_is_no_bundle(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "site.evb"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("manifest.json", "{}")
    refused(cli("run", "--bundle", path, "--source", "synthetic:seconds=1"), path, "not written by edge-vad")


def test_a_text_file_is_no_bundle(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "site.evb"
    path.write_text("a bundle, honestly")
    refused(cli("bundle", "verify", path), path, "not a bundle", "edge-vad build")


def test_a_flipped_byte_in_every_member(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    whole = tiny_bundle.read_bytes()
    members = read_bundle(tiny_bundle).members
    for data in members.values():
        at = whole.index(data) + len(data) // 2
        path = tmp_path / "flipped.evb"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(cli("bundle", "verify", path), path, "copy it again")


def test_a_flipped_byte_in_every_member_of_a_remade_archive(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    members = read_bundle(tiny_bundle).members
    for name, data in members.items():
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path = tmp_path / "remade.evb"
        path.write_bytes(archive.pack({**members, name: changed}))
        refused(cli("run", "--bundle", path, "--source", "synthetic:seconds=1"), path)


# Settings


def test_an_unknown_profile(cli: Cli, tiny_bundle: Path) -> None:
    said = cli("run", "--bundle", tiny_bundle, "--source", "synthetic:seconds=1", "--profile", "raspbery_pi_5")
    refused(said, "'raspbery_pi_5'", "did you mean 'raspberry_pi_5'")


def test_an_unknown_profile_key(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndescription: mine\ninference:\n  backnd: onnxruntime\n")
    refused(cli("profiles", path), path, "'backnd'", "did you mean 'backend'")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("inference.thread=2", ("'thread'", "did you mean 'threads'")),
        ("inference.threads=two", ("threads", "expected int", "'two'")),
        ("inference.threads=[1", ("inference.threads=[1",)),
        ("inference.threads", ("key.key=value",)),
        ("inference.backend=onxruntime", ("'onxruntime'", "did you mean 'onnxruntime'")),
        ("inference.bank=hnws", ("'hnws'", "did you mean 'hnsw'")),
        ("inference.device=cuda:0", ("no cuda here", "pip install onnxruntime-gpu")),
        ("build.precision=int4", ("'int4'", "did you mean 'int8'")),
    ],
)
def test_a_wrong_setting(setting: str, words: tuple[str, ...], cli: Cli, tiny_bundle: Path) -> None:
    said = cli("run", "--bundle", tiny_bundle, "--source", "synthetic:seconds=1", "--set", setting)
    refused(said, *words)


def test_an_unknown_build_key(build: Build, footage: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("ratoi: 0.1\n")
    refused(build(footage, "--config", str(config)), config, "'ratoi'", "did you mean 'ratio'")


@pytest.mark.parametrize("ratio", ["0", "1.5", "-0.1"])
def test_a_ratio_out_of_range(ratio: str, build: Build, footage: Path) -> None:
    refused(build(footage, "--ratio", ratio), "ratio must lie in 0..1", ratio)


def test_a_configuration_that_is_not_there(build: Build, footage: Path) -> None:
    refused(build(footage, "--config", "nowhere.yaml"), "nowhere.yaml", "cannot be read")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["biuld"], ("'biuld'", "did you mean 'build'")),
        (["build"], ("--normal", "--out")),
        (["run", "--bundle", "x.evb"], ("--source",)),
        (["run", "--bundle", "x.evb", "--source", "y", "--frames", "2"], ("--frames",)),
        (["bundle", "open", "x.evb"], ("'open'", "inspect")),
        (["build", "--normal", "x", "--out", "y", "--ratio", "much"], ("--ratio", "'much'")),
        (["evaluate", "--bundle", "x", "--report", "y"], ("--dataset", "--videos")),
        (["evaluate", "--bundle", "x", "--report", "y", "--dataset", "avenue", "z"], ("'avenue'", "ped2")),
        (["encoder", "quantize", "--encoder", "x.onnx", "--out", "y.onnx"], ("--calibration",)),
        (["encoder", "export", "--encoder", "x.onnx", "--out", "y.onnx", "--mean", "1,2"], ("--mean",)),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], words: tuple[str, ...], cli: Cli) -> None:
    refused(cli(*arguments), *words, "--help", code=2)


# Encoders


def test_an_onnx_file_without_the_named_taps(cli: Cli, footage: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "site.evb"
    said = cli("build", "--normal", footage, "--out", out, "--encoder", tiny_encoder, "--taps", "fine,corse")
    refused(said, tiny_encoder, "'corse'", "did you mean 'coarse'")
    assert not out.exists()


def test_an_onnx_file_that_says_nothing_of_itself(cli: Cli, footage: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    said = cli("build", "--normal", footage, "--out", tmp_path / "site.evb", "--encoder", tiny_encoder)
    refused(said, tiny_encoder, "--taps", "--config", "fine", "coarse")


def test_an_encoder_that_is_not_there_or_no_model(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    refused(cli("encoder", "export", "--encoder", "nowhere.onnx", "--out", out), "nowhere.onnx", "cannot be read")
    (tmp_path / "text.onnx").write_text("a model")
    refused(cli("encoder", "export", "--encoder", tmp_path / "text.onnx", "--out", out), "text.onnx", "not a valid ONNX")
    refused(cli("encoder", "export", "--encoder", "eficientnet", "--out", out), "did you mean 'efficientnet_lite0'")
    assert not out.exists()


def test_a_detector_that_is_no_detector(build: Build, footage: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("a model")
    refused(build(footage, "--detector", str(tmp_path / "text.onnx")), tmp_path / "text.onnx", "not a valid ONNX")
    refused(build(footage, "--detector", "nowhere.onnx"), "nowhere.onnx", "cannot be read")
    refused(build(footage, "--detector", str(tiny_encoder)), tiny_encoder, "YOLO")


# Missing packages


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a package impossible to import, as if it were not installed."""

    def remove(package: str) -> None:
        found = importlib_import

        def refuse(name: str, *rest: Any) -> Any:
            if name.split(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            return found(name, *rest)

        monkeypatch.setattr("importlib.import_module", refuse)

    import importlib

    importlib_import = importlib.import_module
    return remove


@pytest.mark.parametrize(
    ("package", "setting", "command"),
    [
        ("onnxruntime", "inference.backend=onnxruntime", "pip install 'onnxruntime'"),
        ("openvino", "inference.backend=openvino", "pip install 'openvino'"),
        ("hnswlib", "inference.bank=hnsw", "pip install 'hnswlib'"),
    ],
)
def test_a_missing_package_of_the_runtime(
    package: str, setting: str, command: str, cli: Cli, tiny_bundle: Path, without: Callable[[str], None]
) -> None:
    without(package)
    said = cli("run", "--bundle", tiny_bundle, "--source", "synthetic:seconds=1", "--set", setting)
    refused(said, package, command)


def test_a_missing_opencv(build: Build, footage: Path, without: Callable[[str], None]) -> None:
    without("cv2")
    refused(build(footage), "reading pictures", "pip install 'opencv-python-headless'")


def test_a_missing_onnx(build: Build, footage: Path, without: Callable[[str], None]) -> None:
    without("onnx")
    refused(build(footage), "edge-vad build needs", "pip install 'onnx'")


# Places to write to


def test_a_bundle_into_a_folder_that_does_not_exist(cli: Cli, footage: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "no" / "site.evb"
    refused(cli(*tiny.build_arguments(footage, out, tiny_encoder)), out, "does not exist", "create it")
    assert not out.parent.exists()


def test_a_bundle_onto_a_folder(cli: Cli, footage: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    refused(cli(*tiny.build_arguments(footage, tmp_path, tiny_encoder)), tmp_path, "is a folder")


def test_a_bundle_into_a_place_that_cannot_be_written(cli: Cli, footage: Path, tiny_encoder: Path) -> None:
    out = Path("/proc/site.evb")
    refused(cli(*tiny.build_arguments(footage, out, tiny_encoder)), out, "cannot be written")


def test_a_full_disk_leaves_the_old_bundle(
    cli: Cli, footage: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "out" / "site.evb"
    out.parent.mkdir()
    out.write_bytes(b"the old one")

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    refused(cli(*tiny.build_arguments(footage, out, tiny_encoder)), out, "No space left")
    assert [path.name for path in out.parent.iterdir()] == ["site.evb"]
    assert out.read_bytes() == b"the old one"


def test_events_into_a_folder_that_does_not_exist(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "no" / "events.jsonl"
    said = cli("run", "--bundle", tiny_bundle, "--source", "synthetic:seconds=1,size=180x120", "--sink", f"jsonl:{place}")
    refused(said, place, "No such file or directory")


def test_an_unknown_sink(cli: Cli, tiny_bundle: Path) -> None:
    said = cli("run", "--bundle", tiny_bundle, "--source", "synthetic:seconds=1,size=180x120", "--sink", "json:x")
    refused(said, "'json'", "did you mean 'jsonl'")


def test_a_report_into_a_place_that_cannot_be_written(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"a": {"frames": 25, "anomalous_1based": []}}')
    tiny.write_clip(tmp_path / "videos" / "a", 25)
    place = tmp_path / "labels.json" / "report"
    arguments = ["--videos", tmp_path / "videos", "--labels", tmp_path / "labels.json", "--report", place]
    refused(cli("evaluate", "--bundle", tiny_bundle, *arguments), place.parent, "name another folder")


def test_labels_that_do_not_fit(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    tiny.write_clip(tmp_path / "videos" / "a", 25)
    labels = tmp_path / "labels.json"
    labels.write_text('{"a": {"frames": 24, "anomalous_1based": []}}')
    arguments = ["--videos", tmp_path / "videos", "--labels", labels, "--report", tmp_path / "report"]
    refused(cli("evaluate", "--bundle", tiny_bundle, *arguments), labels, "24 frames", "25")
    assert not (tmp_path / "report").exists()


def test_a_traceback_comes_with_v_only(tiny_bundle: Path) -> None:
    from edge_vad.cli import main
    from edge_vad.errors import BundleFormatError

    with pytest.raises(BundleFormatError):
        main(["-v", "bundle", "inspect", "nowhere.evb"])
