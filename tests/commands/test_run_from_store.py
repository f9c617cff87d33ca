"""edge-vad run --store: the current bundle, its trial, and the previous one where it cannot run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from altered import altered
from tiny import Outcome

from edge_vad.bundle import read_bundle
from edge_vad.store import Store

Cli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def second(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle again, with serial 2."""
    return altered(tiny_bundle, tmp_path_factory.mktemp("second") / "second.evb", serial=2)


@pytest.fixture(scope="module")
def failing(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with serial 3 whose self-test fails here: installed where its backend still worked."""
    scores = read_bundle(tiny_bundle).golden()["scores"]
    out = tmp_path_factory.mktemp("failing") / "failing.evb"
    return altered(tiny_bundle, out, golden={"scores": scores + np.float32(1)}, serial=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def run(cli: Cli, store: Store) -> Callable[..., Outcome]:
    """edge-vad run --store FOLDER on some seconds of the generated street."""

    def run(seconds: float, *more: object) -> Outcome:
        source = f"synthetic:seed=3,size=180x120,anomalies=none,seconds={seconds}"
        return cli("run", "--store", store.folder, "--source", source, *more)

    return run


def put(store: Store, *paths: Path, confirmed: bool = True) -> list[str]:
    """Install without a self-test and activate, one after the other; returns the ids."""
    ids = []
    for path in paths:
        ids.append(store.install(path))
        store.activate(ids[-1])
        if confirmed:
            store.confirm()
    return ids


def test_a_trial_is_confirmed_after_seconds_of_scored_frames(
    run: Callable[..., Outcome], store: Store, tiny_bundle: Path, second: Path
) -> None:
    _, bundle_id = (*put(store, tiny_bundle), *put(store, second, confirmed=False))
    assert (store.current, store.attempts_made, store.serial) == (bundle_id, 0, 1)
    assert run(2, "--set", "store.confirm_s=3").code == 0
    assert (store.current, store.attempts_made, store.serial) == (bundle_id, 1, 1), "it did not run for 3 seconds"
    assert run(2, "--set", "store.confirm_s=1").code == 0
    assert (store.current, store.attempts_made, store.serial) == (bundle_id, None, 2)


def test_a_bundle_that_is_never_confirmed_is_given_up(
    run: Callable[..., Outcome], store: Store, tiny_bundle: Path, second: Path
) -> None:
    first = put(store, tiny_bundle)[0]
    put(store, second, confirmed=False)
    for attempt in (1, 2):
        assert run(0.5, "--set", "store.attempts=2").code == 0
        assert store.attempts_made == attempt
    assert run(0.5, "--set", "store.attempts=2").code == 0
    assert (store.current, store.last_rollback["reason"]) == (first, "not confirmed after 2 starts")


def test_a_bundle_that_fails_on_this_device_gives_way_to_the_previous_one(
    store: Store, tiny_bundle: Path, failing: Path
) -> None:
    """In a process of its own: what is said on standard error is what an administrator reads in the journal."""
    first, bad = (*put(store, tiny_bundle), *put(store, failing, confirmed=False))
    source = "synthetic:seed=3,size=180x120,anomalies=none,seconds=2"
    command = [sys.executable, "-c", "import sys; from edge_vad.cli import main; sys.exit(main())"]
    command += ["run", "--store", str(store.folder), "--source", source, "--set", "store.confirm_s=1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert f"bundle {bad[:12]} cannot run: golden self-test: scores differ" in ended.stderr
    assert f"rolled back to bundle {first[:12]}" in lines and "20 frames" in lines[-1]
    assert (store.current, store.previous, store.serial) == (first, None, 1)
    assert store.last_rollback["from"] == bad and "golden self-test" in store.last_rollback["reason"]


def test_where_neither_bundle_can_run_one_line_says_so(
    run: Callable[..., Outcome], store: Store, tiny_bundle: Path, failing: Path
) -> None:
    first, bad = (*put(store, tiny_bundle), *put(store, failing))
    (store.folder / "bundles" / first / "LICENSES.txt").write_text("free beer")
    said = run(1)
    assert said.code == 1 and said.out == ""
    line = said.err.splitlines()[-1]
    assert line.startswith(f"edge-vad run: {store.folder}: no bundle can run; install and activate one (")
    assert f"{bad[:12]}: golden self-test" in line and f"{first[:12]}: " in line
    assert store.current == bad


def test_an_empty_store_says_so(run: Callable[..., Outcome], store: Store) -> None:
    said = run(1)
    assert (said.code, said.out) == (1, "") and not store.folder.exists()
    assert said.err == f"edge-vad run: {store.folder}: no bundle can run; install and activate one (it is empty)\n"


@pytest.mark.parametrize(
    "arguments", [("--bundle", "site.evb", "--store", "store"), ("--bundle", "site.evb", "--store"), ()]
)
def test_a_bundle_and_a_store_at_once_or_neither_is_a_usage_error(arguments: tuple[str, ...], cli: Cli) -> None:
    said = cli("run", "--source", "synthetic:seconds=1", *arguments)
    assert (said.code, said.out) == (2, "") and len(said.err.splitlines()) == 1
    assert "--bundle" in said.err and "--store" in said.err


def test_the_folder_is_the_profiles_unless_named(cli: Cli, store: Store, tmp_path: Path, tiny_bundle: Path) -> None:
    put(store, tiny_bundle)
    source = ("--source", "synthetic:seed=3,size=180x120,anomalies=none,seconds=0.5")
    assert cli("run", "--store", *source, "--set", f"store.folder={store.folder}").code == 0
    said = cli("run", *source, "--set", f"store.folder={tmp_path / 'other'}", "--store")
    assert said.code == 1 and str(tmp_path / "other") in said.err
    assert cli("run", "--store", store.folder, *source, "--set", f"store.folder={tmp_path / 'other'}").code == 0


def test_a_dot_is_a_folder_like_any_other(
    cli: Cli, store: Store, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tiny_bundle)
    monkeypatch.chdir(store.folder)
    assert cli("run", "--store", ".", "--source", "synthetic:seed=3,size=180x120,seconds=0.5").code == 0
