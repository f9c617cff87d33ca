"""The self-test in a child: what computes something else, hangs, crashes or eats the memory is an error on one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from altered import altered
from onnx import helper

from edge_vad.bundle import read_bundle
from edge_vad.errors import SelfTestError
from edge_vad.profile import Profile, load_profile
from edge_vad.self_test import allowed_mb, check_in_child


def profile(*changes: str) -> Profile:
    return load_profile("desktop_cpu", changes)


def refused(path: Path, *changes: str, bundle_id: str | None = None) -> str:
    """The one line that the self-test ends with."""
    with pytest.raises(SelfTestError) as caught:
        check_in_child(path, bundle_id or read_bundle(path).id, profile(*changes))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "Traceback" not in message
    return message


def hungry_encoder(doublings: int) -> bytes:
    """The tiny encoder, with a tensor that is joined to itself again and again: all of it within the rules for models."""
    generator = np.random.default_rng(5)
    weights = {
        "w0": generator.normal(0, 0.3, (8, 3, 4, 4)).astype(np.float32),
        "w1": generator.normal(0, 0.3, (8, 8, 2, 2)).astype(np.float32),
        "nothing": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["stem"], strides=[4, 4]),
        helper.make_node("Relu", ["stem"], ["fine"]),
        helper.make_node("GlobalAveragePool", ["fine"], ["grown0"]),
        *(helper.make_node("Concat", [f"grown{i}"] * 2, [f"grown{i + 1}"], axis=2) for i in range(doublings)),
        helper.make_node("GlobalMaxPool", [f"grown{doublings}"], ["one"]),
        helper.make_node("Mul", ["one", "nothing"], ["zero"]),
        helper.make_node("Conv", ["fine", "w1"], ["last"], strides=[2, 2]),
        helper.make_node("Add", ["last", "zero"], ["added"]),
        helper.make_node("Relu", ["added"], ["coarse"]),
    ]
    outputs = {"fine": ["n", 8, "h4", "w4"], "coarse": ["n", 8, "h8", "w8"]}
    return tiny.model(nodes, weights, {"image": ["n", 3, "h", "w"]}, outputs)


def pretend(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell script in the place of the interpreter: a child that behaves as badly as wanted."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_a_healthy_bundle_passes_as_a_file_and_as_a_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    check_in_child(tiny_bundle, bundle.id, profile())
    for name, data in bundle.members.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    check_in_child(tmp_path, bundle.id, profile())


def test_a_gpu_has_more_memory_for_its_libraries() -> None:
    limit = "store.self_test_mb=512"
    assert allowed_mb(profile(limit)) == 512
    assert allowed_mb(profile(limit, "inference.backend=torch", "inference.device=cuda:0")) > 512 + 2200


def test_a_relative_path_is_found(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_bundle.parent)
    check_in_child(Path(tiny_bundle.name), read_bundle(tiny_bundle).id, profile())


def test_modules_in_the_present_folder_are_not_imported(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator may stand in a folder that anybody can write to."""
    for name in ("numpy", "yaml", "json", "edge_vad"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign code ran')")
    monkeypatch.chdir(tmp_path)
    check_in_child(tiny_bundle, read_bundle(tiny_bundle).id, profile())


def test_other_golden_values_fail(tiny_bundle: Path, tmp_path: Path) -> None:
    scores = read_bundle(tiny_bundle).golden()["scores"]
    path = altered(tiny_bundle, tmp_path / "other.evb", golden={"scores": scores + 1})
    message = refused(path)
    assert "golden self-test: scores differ" in message and "try another backend" in message


def test_another_encoder_with_all_bindings_made_again_fails(tiny_bundle: Path, tmp_path: Path) -> None:
    """It computes something; the golden frames know that it is something else."""
    bundle = read_bundle(tiny_bundle)
    encoder = bytearray(bundle.model("encoder"))
    w0 = np.random.default_rng(5).normal(0, 0.3, (8, 3, 4, 4)).astype(np.float32).tobytes()
    at = encoder.index(w0)
    encoder[at : at + len(w0)] = (np.frombuffer(w0, np.float32) * 1.5).astype(np.float32).tobytes()
    assert "golden self-test" in refused(altered(tiny_bundle, tmp_path / "other.evb", encoder=bytes(encoder)))


def test_a_copy_with_another_serial_passes(tiny_bundle: Path, tmp_path: Path) -> None:
    """What the helper changes is what the other tests fail by, and nothing else."""
    path = altered(tiny_bundle, tmp_path / "later.evb", serial=7)
    check_in_child(path, read_bundle(path).id, profile())


def test_a_bundle_that_is_exchanged_meanwhile_fails(tiny_bundle: Path) -> None:
    assert "exchanged while it was checked" in refused(tiny_bundle, bundle_id="0" * 64)


def test_a_bundle_that_is_damaged_or_gone_meanwhile_fails(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle_id = read_bundle(tiny_bundle).id
    path = tmp_path / "site.evb"
    path.write_bytes(tiny_bundle.read_bytes()[:-1])
    assert "damaged" in refused(path, bundle_id=bundle_id)
    path.unlink()
    assert "No such file" in refused(path, bundle_id=bundle_id)


def test_too_much_time_ends_it(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "took more than 0.01 s and was ended" in refused(tiny_bundle, "store.self_test_s=0.01")
    pretend(tmp_path, f"echo $$ > {tmp_path}/number; exec sleep 60", monkeypatch)
    assert "took more than 0.5 s and was ended" in refused(tiny_bundle, "store.self_test_s=0.5")
    assert not Path("/proc", (tmp_path / "number").read_text().strip()).exists(), "it must not stay"


@pytest.mark.parametrize("doublings", [30, 40])
def test_a_model_that_eats_the_memory_is_stopped_by_the_limit(doublings: int, tiny_bundle: Path, tmp_path: Path) -> None:
    path = altered(tiny_bundle, tmp_path / "hungry.evb", encoder=hungry_encoder(doublings))
    message = refused(path, "store.self_test_mb=512", "store.self_test_s=60")
    assert "it needs more memory than store.self_test_mb=512 (" in message or "(store.self_test_mb=512): ended by" in message


def test_the_same_model_with_less_appetite_passes(tiny_bundle: Path, tmp_path: Path) -> None:
    path = altered(tiny_bundle, tmp_path / "modest.evb", encoder=hungry_encoder(3))
    check_in_child(path, read_bundle(path).id, profile("store.self_test_mb=512"))


def test_too_little_memory_is_an_error_that_names_the_limit(tiny_bundle: Path) -> None:
    assert "store.self_test_mb=64" in refused(tiny_bundle, "store.self_test_mb=64")


def test_the_limit_holds_also_below_a_lower_one_of_the_system() -> None:
    """A service manager may have set one already; a process cannot raise it again."""
    code = (
        "import resource, sys\nfrom edge_vad.self_test import _limit\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))\n_limit(int(sys.argv[1]))\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20)\n"
        "try: bytearray(300 << 20)\nexcept MemoryError: print('refused')"
    )
    for wanted, given in ((100, 100), (4096, 200)):
        ended = subprocess.run([sys.executable, "-c", code, str(wanted)], capture_output=True, text=True, check=True)
        assert ended.stdout.split() == [str(given), "refused"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "ended by SIGSEGV"),
        ("kill -KILL $$", "ended by SIGKILL"),
        ("kill -40 $$", "ended by signal 40"),
        ("exit 3", "did not end well (store.self_test_mb=2048): without a word"),
        ("printf '\\377\\376\\n' >&2; exit 1", "did not end well"),
        ("head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo last words >&2; exit 1", "last words"),
        ("cat > /dev/null; echo 'Traceback' >&2; echo 'illegal instruction' >&2; exit 132", "illegal instruction"),
    ],
    ids=["segfault", "killed", "a signal without a name", "silent", "not text", "talkative", "exit code"],
)
def test_a_child_that_crashes_is_an_error_of_the_bundle(
    script: str, words: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, script, monkeypatch)
    assert words in refused(tiny_bundle)


def test_a_child_that_cannot_be_started_is_an_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "the self-test cannot be started: No such file or directory" in refused(tiny_bundle)
