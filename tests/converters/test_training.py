"""edge-vad train: it learns, it can be killed and goes on to the same bytes, and what is wrong is said on one line."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import tiny
import torch
from edge_vad.converters import training, training_footage
from edge_vad.converters.checkpoint import NETWORK, NETWORK_KEY, STATE, load_network, load_state, save_state
from edge_vad.converters.desd import Desd
from edge_vad.converters.run_folder import LOSSES, RECONSTRUCTIONS, run_folder
from edge_vad.converters.systems import SYSTEMS
from edge_vad.converters.train_settings import TrainSettings
from edge_vad.converters.training import Training, as_frames, precision_of, resumable, train
from edge_vad.converters.training_footage import PICTURES, RECEIPT, TrainingFootage, held_out, open_footage
from edge_vad.converters.training_pictures import draw_losses
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import Outcome

from edge_vad import files
from edge_vad.cameras import open_camera
from edge_vad.errors import EdgeVadError, NetworkError, OutputError, SourceError
from edge_vad.footage import Clip, find_clips
from edge_vad.networks import picture, planes

Cli = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 32)
SETTINGS = TrainSettings("maam", size=SIZE, width=0.1, epochs=2, threads=1, precision="fp32", lr=0.003, stride=1)
MAIN = {"maam": "appearance", "amco": "appearance", "desd": "intensity", "stpag": "appearance"}
FLAGS = ["--size", "32x48", "--width", "0.1", "--threads", "1", "--precision", "fp32", "--lr", "0.003", "--stride", "1"]


def settings_of(method: str) -> TrainSettings:
    """DESDnet with the erasure, which depends on what an epoch gathers."""
    return replace(SETTINGS, method=method, options={"erasure": True} if method == "desd" else {})


@pytest.fixture(scope="module")
def clips(footage: Path) -> list[Clip]:
    """Two clips of 40 frames."""
    return find_clips([footage])


@pytest.fixture(scope="module")
def runs(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Training]:
    """A training of each method, done once."""
    done: dict[str, Training] = {}

    def run(method: str) -> Training:
        if method not in done:
            done[method] = train(settings_of(method), clips, tmp_path_factory.mktemp(method) / "run")
        return done[method]

    return run


def network_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The network file without what a clock said: where its tensors lie, what it says of itself, their bytes."""
    header, data = split(folder / NETWORK)
    said = json.loads(header.pop("__metadata__")[NETWORK_KEY])
    assert said.pop("seconds") > 0
    return header, said, data


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def interrupted(settings: TrainSettings, clips: Sequence[Clip], folder: Path, at: int) -> None:
    """A run that dies in step ``at``, with a checkpoint of the one before."""
    with pytest.MonkeyPatch.context() as patched:
        step = Training._train_step

        def dying(self: Training) -> None:
            if self.step == at:
                raise ZeroDivisionError
            step(self)

        patched.setattr(Training, "_train_step", dying)
        patched.setattr(training, "CHECKPOINT_S", 0.0)
        with pytest.raises(ZeroDivisionError):
            train(settings, clips, folder)


def resume(clips: Sequence[Clip], folder: Path, **changed: Any) -> Training:
    settings, state = resumable(folder)
    return train(settings.changed(**changed), clips, folder, state)


@pytest.mark.parametrize("method", SYSTEMS)
def test_the_loss_goes_down(method: str, runs: Callable[[str], Training]) -> None:
    run = runs(method)
    losses = run.curves()[MAIN[method]]
    assert len(losses) == run.n_steps == 2 * run.n_per_epoch and run.n_per_epoch >= 5
    assert losses[-3:].mean() < 0.7 * losses[:2].mean()


@pytest.mark.parametrize("method", SYSTEMS)
def test_a_seed_decides_every_byte(method: str, clips: list[Clip], runs: Callable[[str], Training], tmp_path: Path) -> None:
    settings = settings_of(method)
    torch.manual_seed(77)  # whatever ran before
    train(settings, clips, tmp_path / "same")
    assert network_of(tmp_path / "same") == network_of(runs(method).folder)
    if method == "maam":
        train(replace(settings, seed=1, epochs=1), clips, tmp_path / "other")
        train(replace(settings, epochs=1), clips, tmp_path / "first")
        assert network_of(tmp_path / "other") != network_of(tmp_path / "first")


@pytest.mark.parametrize("method", SYSTEMS)
def test_a_run_that_died_goes_on_to_the_same_bytes(
    method: str, clips: list[Clip], runs: Callable[[str], Training], tmp_path: Path
) -> None:
    whole = runs(method)
    settings, folder = settings_of(method), tmp_path / "run"
    interrupted(settings, clips, folder, at=whole.n_per_epoch - 2)  # the epoch gathers something before and after it
    assert not (folder / NETWORK).exists()
    again = resume(clips, folder)
    assert again.step == whole.n_steps and again.history == whole.history
    assert network_of(folder) == network_of(whole.folder)


def test_windows_are_augmented_unless_a_run_says_otherwise_or_is_of_before(
    clips: list[Clip], runs: Callable[[str], Training], tmp_path: Path
) -> None:
    train(replace(SETTINGS, augment=False), clips, tmp_path, stop=lambda: True)
    settings, state = resumable(tmp_path)
    assert not settings.augment and runs("maam").settings.augment
    assert state.history[0].tolist() != list(runs("maam").history[0].values())
    del state.settings["augment"]
    save_state(tmp_path / STATE, state)
    assert not resumable(tmp_path)[0].augment


def test_the_warm_up_of_maam_may_be_interrupted(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_vad.converters.maam.WARM_UP", 5)
    settings = replace(SETTINGS, epochs=1, options={"n_items": 20})
    train(settings, clips, tmp_path / "whole")
    interrupted(settings, clips, tmp_path / "run", at=3)
    assert load_state(tmp_path / "run" / STATE).transient
    whole = resume(clips, tmp_path / "run")
    assert network_of(tmp_path / "run") == network_of(tmp_path / "whole")
    curves = whole.curves()
    assert np.isnan(curves["sparse"][:5]).all() and not np.isnan(curves["sparse"][5:]).any()


def test_a_run_that_died_between_state_and_network_goes_on(
    clips: list[Clip], runs: Callable[[str], Training], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / STATE).write_bytes((runs("desd").folder / STATE).read_bytes())
    assert resume(clips, folder).is_done
    assert network_of(folder) == network_of(runs("desd").folder)


def test_a_stopped_run_keeps_its_last_step_and_goes_on(
    clips: list[Clip], runs: Callable[[str], Training], tmp_path: Path
) -> None:
    asked = iter([False] * 2 + [True])
    stopped = train(SETTINGS, clips, tmp_path, stop=lambda: next(asked))
    assert stopped.step == 3 == load_state(tmp_path / STATE).step and not stopped.is_done
    resume(clips, tmp_path)
    assert network_of(tmp_path) == network_of(runs("maam").folder)


def test_a_killed_process_goes_on(footage: Path, clips: list[Clip], tmp_path: Path, cli: Cli) -> None:
    code = "import sys; from edge_vad.converters import training; training.CHECKPOINT_S = 0.0\n"
    code += "from edge_vad.cli import main; sys.exit(main())"
    folder = tmp_path / "run"
    said = ["train", "--method", "maam", "--normal", str(footage), "--out", str(folder), "--epochs", "9", *FLAGS]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *said], stderr=subprocess.PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 100
    while not (folder / STATE).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    assert 0 < load_state(folder / STATE).step < 9 * 7
    ended = cli("train", "--resume", "--normal", footage, "--out", folder)
    assert ended.code == 0 and ended.out.startswith(f"{folder / NETWORK}: 0."), ended.err
    assert "next: edge-vad build --method maam --weights" in ended.out and ended.out.count("\n") == 1
    train(replace(SETTINGS, epochs=9), clips, tmp_path / "whole")
    assert network_of(folder) == network_of(tmp_path / "whole")


def test_an_interrupt_ends_between_two_steps(
    footage: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Training._train_step

    def asked(self: Training) -> None:
        if self.step in (2, 4):
            os.kill(os.getpid(), signal.SIGINT if self.step == 2 else signal.SIGTERM)
        step(self)

    monkeypatch.setattr(Training, "_train_step", asked)
    before = signal.getsignal(signal.SIGINT)
    with caplog.at_level(logging.INFO):
        assert cli("train", "--method", "maam", "--normal", footage, "--out", tmp_path, "--epochs", "1", *FLAGS).code == 130
    assert load_state(tmp_path / STATE).step == 3
    assert f"stopped at step 3 of 7, which is kept; to go on: edge-vad train --resume --out {tmp_path}" in caplog.text
    assert cli("train", "--resume", "--normal", footage, "--out", tmp_path).code == 143
    assert load_state(tmp_path / STATE).step == 5 and signal.getsignal(signal.SIGINT) is before


def test_more_epochs_can_be_added(clips: list[Clip], tmp_path: Path) -> None:
    train(replace(SETTINGS, epochs=1), clips, tmp_path)
    assert load_network(tmp_path)[1].epochs == 1
    assert resume(clips, tmp_path, epochs=2).epoch == 2
    assert load_network(tmp_path)[1].epochs == 2
    with pytest.raises(NetworkError, match="--epochs 1 is behind"):
        resume(clips, tmp_path, epochs=1)


def test_the_learning_rate_falls_along_a_cosine(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self))[1])
    run = train(replace(SETTINGS, epochs=1), clips, tmp_path)
    expected = 0.003 * (1 + np.cos(np.pi * np.arange(run.n_steps) / run.n_steps)) / 2
    assert np.allclose(rates, expected) and rates[0] == 0.003


def test_what_is_held_out_is_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        tiny.write_clip(tmp_path / "clips" / f"{number:02d}", 20, seed=number)
    seen: list[int] = []
    windows = TrainingFootage.windows

    def watched(self: TrainingFootage, starts: Any) -> Any:
        seen.extend(starts)
        return windows(self, starts)

    monkeypatch.setattr(TrainingFootage, "windows", watched)
    monkeypatch.setattr(training, "draw_reconstructions", lambda *_: b"")
    run = train(replace(SETTINGS, epochs=2, batch=2), find_clips([tmp_path / "clips"]), tmp_path / "run")
    assert run.footage.held_out == (("02", 0, 20),) == load_network(tmp_path / "run")[1].held_out
    frames = {start + i for start in seen for i in range(2)}
    assert frames == {*range(40), *range(60, 80)}
    assert set(run.footage.held_out_starts) == set(range(40, 59))


@given(st.lists(st.integers(20, 60), min_size=1, max_size=20), st.integers(2, 9))
def test_held_out_footage_is_apart_and_enough(lengths: list[int], n_frames: int) -> None:
    held = held_out(lengths, n_frames)
    assert all(stop - start >= n_frames and 0 <= start < stop == lengths[i] for i, start, stop in held)
    if len(lengths) >= 4:
        assert len({i for i, _, _ in held}) == len(held) == max(1, len(lengths) // 5)
        assert all(start == 0 for _, start, _ in held)
    else:
        assert [i for i, _, _ in held] == list(range(len(lengths)))
        assert all(start >= n_frames for _, start, _ in held)


def test_held_out_clips_are_spread_evenly() -> None:
    assert [i for i, _, _ in held_out([50] * 16, 2)] == [2, 8, 13]
    assert [i for i, _, _ in held_out([50] * 24, 2)] == [3, 9, 15, 21]
    assert held_out([50, 100], 2) == [(0, 40, 50), (1, 80, 100)]


def test_windows_are_the_pictures_of_the_runtime_and_stay_in_their_clip(clips: list[Clip], tmp_path: Path) -> None:
    found = open_footage(clips, tmp_path, SIZE, n_frames=5, stride=2)
    assert isinstance(found.pictures, np.memmap) and found.pictures.shape == (80, 32, 48, 3)
    assert (found.image_size, found.fps, found.step, found.stride) == (tiny.SIZE, 10.0, 1, 2)
    assert found.held_out == (("01", 31, 40), ("02", 31, 40))
    assert list(found.starts) == [*range(23), *range(40, 63)] and list(found.held_out_starts) == [31, 71]
    with open_camera(clips[1].path) as camera:
        expected = [picture(frame.image, SIZE) for frame in camera.frames()][2:12:2]
    windows = found.windows(found.starts[[25, 0]])
    assert windows.shape == (2, 5, 32, 48, 3) and np.array_equal(windows[0], expected)
    frames = as_frames(windows, torch.device("cpu")).numpy()
    assert frames.shape == (2, 5, 3, 32, 48) and np.allclose(frames[0, 1], planes(expected[1]), atol=1e-6)
    assert frames.min() >= -1 and frames.max() <= 1


def test_the_frames_of_a_window_lie_a_third_of_a_second_apart(clips: list[Clip], tmp_path: Path) -> None:
    found = [open_footage(clips, tmp_path, SIZE, 2, fps=fps) for fps in (5.0, 10.0, 26.0, 30.0)]
    assert [(one.stride, one.step) for one in found] == [(2, 1), (3, 1), (8, 2), (9, 3)]


def test_windows_begin_between_the_frames_of_others_and_spans_are_in_frames_of_the_footage(
    clips: list[Clip], tmp_path: Path
) -> None:
    found = open_footage(clips, tmp_path, SIZE, n_frames=2, stride=8)
    assert found.step == 2 and len(found.pictures) == 40  # every second frame of 80
    assert found.held_out == (("01", 30, 40), ("02", 30, 40)) and list(found.held_out_starts) == [15, 35]
    assert list(found.starts) == [*range(11), *range(20, 31)]
    with open_camera(clips[0].path) as camera:
        expected = [picture(frame.image, SIZE) for frame in camera.frames()][6:15:8]
    assert np.array_equal(found.windows(found.starts[3:4])[0], expected)


def test_pictures_are_read_once_and_anew_when_anything_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    footage = tiny.write_clip(tmp_path / "01", 20).parent
    clips, folder = find_clips([footage / "01"]), tmp_path / "run"
    folder.mkdir()
    reads = []
    keep = training_footage._keep
    monkeypatch.setattr(training_footage, "_keep", lambda *a: (reads.append(1), keep(*a))[1])

    def is_read(size: tuple[int, int] = SIZE, stride: int = 1) -> bool:
        reads.clear()
        open_footage(clips, folder, size, 2, stride)
        return bool(reads)

    assert is_read() and not is_read()
    assert is_read(stride=6) and is_read(size=(32, 32)) and is_read() and not is_read(stride=2)
    os.utime(footage / "01" / "003.png", ns=(1, 1))
    assert is_read() and not is_read()
    os.truncate(folder / PICTURES, 1000)
    assert is_read() and not is_read()
    (folder / RECEIPT).write_text("half of")
    assert is_read() and not is_read()


def test_a_full_disk_loses_nothing(
    clips: list[Clip], runs: Callable[[str], Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(training_footage.os, "fsync", full)
        with pytest.raises(OutputError, match=r"pictures\.raw: cannot be written: No space left"):
            train(SETTINGS, clips, tmp_path)
    interrupted(SETTINGS, clips, tmp_path, at=4)
    before = (tmp_path / STATE).read_bytes()
    monkeypatch.setattr(files, "write_new", full)
    with pytest.raises(OutputError, match="No space left on device; choose another place or free some space"):
        resume(clips, tmp_path)
    assert (tmp_path / STATE).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {STATE, PICTURES, RECEIPT}
    monkeypatch.undo()
    resume(clips, tmp_path)
    assert network_of(tmp_path) == network_of(runs("maam").folder)


@pytest.mark.parametrize("bad", ["loss", "weight"])
def test_a_training_that_diverges_stops_and_keeps_the_last_checkpoint(
    bad: str, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(SETTINGS, clips, tmp_path, at=4)
    before = (tmp_path / STATE).read_bytes()

    def infinite(self: Any, frames: Any, found: Any) -> Any:
        return {"appearance": found["appearance"].mean() * torch.inf}

    def spoilt(self: Any) -> None:
        self.appearance.last.bias.data[0] = torch.nan

    if bad == "loss":
        monkeypatch.setattr("edge_vad.converters.maam.Maam.losses", infinite)
    else:
        monkeypatch.setattr("edge_vad.converters.maam.Maam.epoch_done", spoilt)
    with pytest.raises(NetworkError, match=f"{bad}.* is not finite at step .*lower --lr than 0.003"):
        resume(clips, tmp_path)
    assert (tmp_path / STATE).read_bytes() == before


def test_bf16_trains_and_keeps_fp32_weights(clips: list[Clip], tmp_path: Path) -> None:
    run = train(replace(SETTINGS, epochs=1, precision="bf16", method="amco"), clips, tmp_path)
    losses = run.curves()["appearance"]
    assert losses[-2:].mean() < losses[:2].mean()
    system, trained = load_network(tmp_path)
    assert trained.precision == "bf16" and {p.dtype for p in system.parameters()} == {torch.float32}
    fp32 = train(replace(SETTINGS, epochs=1, method="amco"), clips, tmp_path / "fp32").curves()["appearance"]
    assert not np.array_equal(losses, fp32) and np.allclose(losses[0], fp32[0], rtol=0.02)


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_auto_is_bf16_where_the_cpu_computes_in_it(
    avx512: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert precision_of(replace(SETTINGS, precision="auto")) == expected
    assert precision_of(SETTINGS) == "fp32"


@pytest.mark.parametrize("method", SYSTEMS)
def test_a_network_comes_back_as_it_was(method: str, runs: Callable[[str], Training]) -> None:
    run = runs(method)
    system, trained = load_network(run.folder / NETWORK, method)
    frames = torch.rand(1, system.n_frames, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        found, expected = system(frames), run.system.eval()(frames)
    run.system.train()
    assert not system.training and all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert (trained.method, trained.size, trained.epochs, trained.n_windows) == (method, SIZE, 2, len(run.footage.starts))
    assert trained.options["width"] == 0.1 and trained.seconds > 0 and trained.held_out == run.footage.held_out
    if isinstance(system, Desd):
        assert len(system.centre) and system.kept.shape[-2:] == (32, 48) and system.radius > 0


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    tensors, plain = load_file(path), json.loads(split(path)[0]["__metadata__"][NETWORK_KEY])
    change(tensors, plain)
    save_file(tensors, path, metadata={NETWORK_KEY: json.dumps(plain)})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "no such file; edge-vad train writes it"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "not a trained network, or cut off"),
        (lambda path: os.truncate(path, 5), "not a trained network, or cut off"),
        (lambda path: path.write_bytes(b"{}" * 100), "not a trained network, or cut off"),
        (lambda path: save_file({"x": torch.zeros(2)}, path), "but not a trained network of edge-vad train"),
        (
            lambda path: rewrite(path, lambda t, p: t.pop("encoder.blocks.0.0.weight")),
            "encoder.blocks.0.0.weight is missing",
        ),
        (lambda path: rewrite(path, lambda t, p: t.update(more=torch.zeros(1))), "more is not of this method"),
        (lambda path: rewrite(path, lambda t, p: p["options"].update(width=0.2)), "has the shape"),
        (lambda path: rewrite(path, lambda t, p: p["options"].update(widht=0.2)), "did you mean 'width'"),
        (lambda path: rewrite(path, lambda t, p: p.update(options=3)), "options: expected keys and values"),
        (lambda path: rewrite(path, lambda t, p: p.update(method="nam")), "did you mean 'maam'"),
        (lambda path: rewrite(path, lambda t, p: p.pop("stride")), "the key 'stride' is missing"),
        (lambda path: rewrite(path, lambda t, p: p.update(epochs="two")), "epochs: expected int"),
    ],
)
def test_a_damaged_network_is_refused(
    damage: Callable[[Path], object], said: str, runs: Callable[[str], Training], tmp_path: Path
) -> None:
    path = tmp_path / NETWORK
    path.write_bytes((runs("maam").folder / NETWORK).read_bytes())
    assert load_network(tmp_path, "maam")[1].method == "maam"
    damage(path)
    with pytest.raises(EdgeVadError, match=re.escape(said)) as refused:
        load_network(tmp_path)
    assert "\n" not in str(refused.value)


def test_weights_of_another_method_are_refused(runs: Callable[[str], Training]) -> None:
    with pytest.raises(NetworkError, match="is a network of maam, not of desd; name --method maam"):
        load_network(runs("maam").folder, "desd")


@pytest.mark.parametrize("n_bytes", [0, 100, 20_000])
def test_a_damaged_state_is_refused(
    n_bytes: int, runs: Callable[[str], Training], footage: Path, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / STATE).write_bytes((runs("maam").folder / STATE).read_bytes()[:n_bytes])
    ended = cli("train", "--resume", "--normal", footage, "--out", tmp_path)
    assert ended.code == 1 and "not the state of a training, or cut off" in ended.err and ended.err.count("\n") == 1


def test_the_network_is_no_state(runs: Callable[[str], Training], tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes((runs("maam").folder / NETWORK).read_bytes())
    with pytest.raises(NetworkError, match="a safetensors file, but not the state of a training"):
        resumable(tmp_path)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["--method", "mam"], "no trained method 'mam' (did you mean 'maam'?)"),
        (["--method", "maam", "--set", "memry=false"], "unknown key 'memry' (did you mean 'memory'?)"),
        (["--method", "maam", "--set", "memory=7"], "memory: expected bool"),
        (["--method", "maam", "--set", "width=1"], "say --width"),
        (["--method", "maam", "--size", "30x48"], "the height of the pictures must be a multiple of 16"),
        (["--method", "maam", "--size", "32x8"], "(the nearest is 16)"),
        (["--method", "maam", "--epochs", "0"], "epochs must lie in 1"),
        (["--method", "maam", "--lr", "nan"], "lr must lie in"),
        (["--method", "maam", "--device", "tpu"], "device must be cpu, cuda or cuda:NUMBER, not 'tpu'"),
        (["--method", "maam", "--width", "9"], "width must lie in"),
        (["--method", "maam", "--stride", "30"], "40 frames; training at stride 30 needs at least 80 of every clip"),
        (["--method", "maam", "--normal", "/nowhere"], "/nowhere: no such file or folder"),
        ([], "the key 'method' is missing"),
        (["--resume"], "there is no training to go on with"),
    ],
)
def test_bad_flags_end_with_one_line(said: list[str], expected: str, footage: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli("train", "--normal", footage, "--out", tmp_path / "run", *said)
    assert ended.code == 1 and expected in ended.err and ended.err.count("\n") == 1 and not ended.out
    assert not (tmp_path / "run" / STATE).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_an_error(footage: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli("train", "--normal", footage, "--out", tmp_path / "run", "--method", "maam", "--device", "cuda")
    assert ended.code == 1 and "finds no such GPU here; say --device cpu" in ended.err


@pytest.mark.parametrize("said", [["--size", "128"], ["--set", "memory"], ["--set", "memory=["], ["--precision", "int8"]])
def test_what_cannot_be_read_is_a_usage_error(said: list[str], footage: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli("train", "--normal", footage, "--out", tmp_path, "--method", "maam", *said)
    assert ended.code == 2 and ended.err.count("\n") == 1


def test_footage_that_is_too_short_or_of_two_sizes_is_refused(tmp_path: Path) -> None:
    tiny.write_clip(tmp_path / "short" / "01", 12)
    with pytest.raises(SourceError, match="12 frames; a clip of normal footage needs at least 20"):
        train(SETTINGS, find_clips([tmp_path / "short"]), tmp_path / "run")
    for number, size in (("01", tiny.SIZE), ("02", (160, 120))):
        tiny.write_clip(tmp_path / "mixed" / number, 20, size=size)
    with pytest.raises(SourceError, match="different sizes"):
        train(SETTINGS, find_clips([tmp_path / "mixed"]), tmp_path / "run")


def test_a_run_that_is_there_is_neither_overwritten_nor_changed(
    runs: Callable[[str], Training], footage: Path, clips: list[Clip], tmp_path: Path, cli: Cli
) -> None:
    folder = runs("maam").folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ended = cli("train", "--method", "maam", "--normal", footage, "--out", folder, *FLAGS)
    assert ended.code == 1 and "holds a training already; go on with it (--resume)" in ended.err
    ended = cli("train", "--resume", "--normal", footage, "--out", folder, "--width", "0.25")
    assert ended.code == 1 and "--width: the run was started with 0.1, not 0.25" in ended.err
    tiny.write_clip(tmp_path / "01", 20)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STATE).write_bytes(before[STATE])
    ended = cli("train", "--resume", "--normal", tmp_path / "01", "--out", tmp_path / "run")
    assert ended.code == 1 and "not the footage that the run was started with" in ended.err
    with run_folder(folder), pytest.raises(OutputError, match="another training is at work there"):
        resume(clips, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_settings_that_agree_may_be_said_again(
    runs: Callable[[str], Training], footage: Path, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / STATE).write_bytes((runs("maam").folder / STATE).read_bytes())
    ended = cli("train", "--resume", "--method", "maam", "--normal", footage, "--out", tmp_path, *FLAGS)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("method", SYSTEMS)
def test_the_pictures_show_the_losses_and_held_out_footage(method: str, runs: Callable[[str], Training]) -> None:
    run = runs(method)
    tree = ElementTree.parse(run.folder / LOSSES)
    name = "{http://www.w3.org/2000/svg}"
    lines = [line.attrib["points"].split() for line in tree.iter(f"{name}polyline")]
    titles = [text.text for text in tree.iter(f"{name}text") if text.get("class") == "name"]
    assert titles == list(run.curves()) and [len(line) for line in lines] == [run.n_steps] * len(titles)
    falling = lines[titles.index(MAIN[method])]
    assert float(falling[-1].split(",")[1]) > float(falling[0].split(",")[1])  # downwards
    shown = cv2.imread(str(run.folder / RECONSTRUCTIONS))[..., ::-1].astype(int)
    n_rows = min(4, len(run.footage.held_out_starts))
    assert shown.shape == (18 + n_rows * 32, 3 * len(run.system.targets) * 48, 3)
    frames = as_frames(run.footage.windows(run.footage.held_out_starts[:1]), torch.device("cpu"))
    for i, output in enumerate(run.system.targets):
        wanted, found, error = (shown[18:50, (3 * i + k) * 48 : (3 * i + k + 1) * 48] for k in range(3))
        expected = (run.system.wanted(output, frames)[0, -1].permute(1, 2, 0).clamp(-1, 1).numpy() + 1) * 127.5
        assert np.abs(wanted - expected).max() <= 1
        off = np.abs(wanted - found).mean(axis=2) / 127.5
        assert np.abs(error[..., 0] - np.minimum(off * 2, 1) * 255).mean() < 3 and error.std() > 1


def test_losses_of_many_steps_are_thinned() -> None:
    late = np.where(np.arange(10_000) < 9_900, np.nan, 3.0)
    tree = ElementTree.fromstring(draw_losses({"a": np.linspace(5, 1, 10_000), "b <": late}, 100))
    first, second = (line.attrib["points"].split() for line in tree.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(first) == 300 and 2 <= len(second) < 10 and second[-1].split(",")[0] == first[-1].split(",")[0]


def test_every_epoch_is_a_line_of_the_log(clips: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edge_vad.converters.training"):
        train(replace(SETTINGS, epochs=2), clips, tmp_path)
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "maam: 62 windows, 14 steps in 2 epochs, fp32 on cpu"
    for number, line in enumerate(told[1:], 1):
        assert re.fullmatch(
            rf"epoch {number} of 2: appearance 0\.\d+, motion 0\.\d+, energy 0\.\d+; \d+ s, \d+ s left", line
        )
    assert len(told) == 3


def test_training_leaves_torch_as_it_was(clips: list[Clip], tmp_path: Path) -> None:
    torch.manual_seed(5)
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    train(replace(SETTINGS, epochs=1), clips, tmp_path)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == n_threads


def test_the_page_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    from edge_vad.cli import main

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    flags = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", capsys.readouterr().out.split("options:")[1])) - {"--help"}
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert len(flags) >= 16 and not [flag for flag in flags if f"`{flag}" not in text]
