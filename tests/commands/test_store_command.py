"""edge-vad store: what an administrator types, with the real self-test in its child."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_bundle
from altered import altered
from tiny import Outcome

from edge_vad.bundle import read_bundle
from edge_vad.store import Store

Cli = Callable[..., Outcome]
Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def second(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle again, with serial 2."""
    return altered(tiny_bundle, tmp_path_factory.mktemp("second") / "second.evb", serial=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def command(cli: Cli, folder: Path) -> Command:
    """edge-vad store ... --store FOLDER"""
    return lambda *arguments: cli("store", *arguments, "--store", folder)


def refused(said: Outcome, *words: object, code: int = 1) -> None:
    """One line on standard error that holds every word, and nothing else."""
    assert (said.code, said.out, len(said.err.splitlines())) == (code, "", 1), said
    assert said.err.startswith("edge-vad store: ") and "Traceback" not in said.err
    for word in words:
        assert str(word) in said.err


def done(said: Outcome, text: str) -> None:
    assert (said.code, said.out) == (0, text + "\n"), said


def short(path: Path) -> str:
    return read_bundle(path).id[:12]


def listed(command: Command) -> dict[str, dict[str, object]]:
    """`list --json` by the start of the id."""
    said = command("list", "--json")
    assert said.code == 0
    return {entry["id"][:12]: entry for entry in json.loads(said.out)["bundles"]}


def test_the_whole_life_of_two_bundles(command: Command, tiny_bundle: Path, second: Path, folder: Path) -> None:
    one, two = short(tiny_bundle), short(second)
    done(command("install", tiny_bundle), f"installed {one}; next: edge-vad store activate {one}")
    done(command("activate", one), f"{one} runs from the next start on, on trial until it is confirmed")
    done(command("confirm"), f"confirmed {one}")
    done(command("install", second), f"installed {two}; next: edge-vad store activate {two}")
    assert listed(command)[one]["states"] == ["current"] and listed(command)[two]["states"] == ["candidate"]
    done(command("activate", two[:6]), f"{two} runs from the next start on, on trial until it is confirmed")
    text = command("list").out.splitlines()
    size = sum(map(len, read_bundle(second).members.values()))
    assert text[0] == f"{two}  serial 2    {size:>11,} bytes  {'tiny':<20} current, candidate, trial 0/3"
    assert text[1].startswith(one) and text[1].endswith("previous") and len(text) == 2
    done(command("confirm"), f"confirmed {two}")
    done(command("rollback"), f"returned to {one}; it runs from the next start on")
    refused(command("rollback"), "there is no previous bundle to return to; see edge-vad store list")
    assert command("list").out.splitlines()[-1] == f"last rollback: from {two}: by hand"
    listing = json.loads(command("list", "--json").out)
    assert listing["serial"] == 2 and listing["last_rollback"]["reason"] == "by hand"
    assert [entry["states"] for entry in listing["bundles"]] == [["current"], ["candidate"]]
    done(command("gc"), "nothing to delete")
    command("install", tiny_bundle, "--allow-older")
    done(command("gc"), f"deleted 1: {read_bundle(second).id[:24]}")
    assert set(listed(command)) == {one}
    assert {path.name for path in folder.iterdir()} == {"bundles", "derived", "state"}


def test_a_list_of_nothing_says_what_to_do(command: Command, folder: Path) -> None:
    done(command("list"), f"{folder}: no bundle is installed: edge-vad store install site.evb")
    assert json.loads(command("list", "--json").out) == {"bundles": [], "serial": 0, "last_rollback": {}}
    done(command("gc"), "nothing to delete")
    assert not folder.exists(), "looking at it makes no store"


def test_a_bundle_that_computes_something_else_is_not_installed(
    command: Command, tiny_bundle: Path, tmp_path: Path, folder: Path
) -> None:
    scores = read_bundle(tiny_bundle).golden()["scores"]
    bad = altered(tiny_bundle, tmp_path / "bad.evb", golden={"scores": scores + np.float32(1)})
    refused(command("install", bad), "golden self-test: scores differ", "try another backend")
    assert listed(command) == {} and list((folder / "bundles").iterdir()) == []


def test_limits_of_the_self_test_are_those_of_the_profile(command: Command, tiny_bundle: Path) -> None:
    refused(command("install", tiny_bundle, "--set", "store.self_test_s=0.01"), "took more than 0.01 s and was ended")
    refused(command("install", tiny_bundle, "--set", "store.self_test_mb=64"), "store.self_test_mb=64")
    refused(command("install", tiny_bundle, "--set", "store.self_test_mb=63"), "self_test_mb at least 64")


def test_what_cannot_be_installed(command: Command, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "notes.txt").write_text("no bundle")
    refused(command("install", tmp_path / "nowhere.evb"), tmp_path / "nowhere.evb", "No such file")
    refused(command("install", tmp_path / "notes.txt"), tmp_path / "notes.txt", "not a bundle")
    refused(command("install", small_bundle.write(tmp_path / "small.evb")), "bundle")
    assert listed(command) == {}


def test_a_store_where_none_can_be(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(cli("store", "install", tiny_bundle, "--store", tmp_path / "file"), "cannot be written", "Not a directory")
    refused(cli("store", "list", "--store", tmp_path / "file"), "cannot be read")


def test_an_older_serial_is_refused_unless_insisted(command: Command, tiny_bundle: Path, second: Path, folder: Path) -> None:
    store = Store(folder)  # without self-tests: they are not asked here
    store.activate(store.install(second))
    store.confirm()
    one = short(tiny_bundle)
    refused(command("install", tiny_bundle), "serial 1 is older than 2", "--serial", "--allow-older")
    done(
        command("install", tiny_bundle, "--allow-older"),
        f"installed {one}; next: edge-vad store activate {one}",
    )
    refused(command("activate", one), "serial 1 is older than 2")
    assert command("activate", one, "--allow-older").code == 0


def test_an_id_that_is_unknown_or_of_several(command: Command, tmp_path: Path, folder: Path) -> None:
    refused(command("activate", "0123"), folder, "no bundle with an id that begins with '0123'", "edge-vad store list")
    store, first_digits = Store(folder), set[str]()
    for serial in range(1, 18):  # of 17 ids, two begin with the same digit
        bundle_id = store.install(small_bundle.write(tmp_path / "small.evb", serial))
        if bundle_id[0] in first_digits:
            break
        first_digits.add(bundle_id[0])
    refused(command("activate", bundle_id[0]), f"2 bundles with an id that begins with '{bundle_id[0]}'")
    refused(command("activate", ""), "no bundle with an id that begins with ''")
    refused(command("activate", "../../etc"), "no bundle with an id that begins with '../../etc'")
    done(command("activate", bundle_id), f"{bundle_id[:12]} runs from the next start on, on trial until it is confirmed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "action"),
        (("instal", "x.evb"), "invalid choice: 'instal'"),
        (("install",), "install takes a FILE.evb or an ID"),
        (("activate",), "activate takes a FILE.evb or an ID"),
        (("confirm", "x"), "confirm takes no argument"),
        (("rollback", "x"), "rollback takes no argument"),
        (("list", "x"), "list takes no argument"),
        (("gc", "x"), "gc takes no argument"),
        (("install", "x.evb", "y.evb"), "unrecognized arguments: y.evb"),
        (("list", "--jsn"), "unrecognized arguments: --jsn"),
    ],
)
def test_wrong_arguments_are_a_usage_error(arguments: tuple[str, ...], words: str, cli: Cli) -> None:
    refused(cli("store", *arguments), words, "see edge-vad store --help", code=2)


def test_wrong_settings_are_an_error(command: Command) -> None:
    refused(command("list", "--set", "store.attempts=0"), "attempts")
    refused(command("list", "--set", "store.folder=3"), "folder: expected str, found 3")
    refused(command("list", "--profile", "rasberry_pi_5"), "did you mean 'raspberry_pi_5'")


def test_the_folder_is_the_profiles_unless_named(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot is a folder like any other."""
    of_profile = tmp_path / "of the profile"
    done(
        cli("store", "list", "--set", f"store.folder={of_profile}"),
        f"{of_profile}: no bundle is installed: edge-vad store install site.evb",
    )
    here = tmp_path / "here"
    bundle_id = Store(here).install(small_bundle.write(tmp_path / "small.evb"))
    monkeypatch.chdir(here)
    for named in (".", "./", "../here"):
        said = cli("store", "list", "--store", named, "--set", f"store.folder={of_profile}")
        assert said.code == 0 and said.out.startswith(bundle_id[:12])


def test_the_attempts_are_the_profiles(command: Command, tmp_path: Path, folder: Path) -> None:
    store = Store(folder)
    store.activate(store.install(small_bundle.write(tmp_path / "small.evb")))
    assert command("list", "--set", "store.attempts=7").out.rstrip().endswith("current, candidate, trial 0/7")


def test_keys_and_policy_are_the_profiles(
    cli: Cli, command: Command, tiny_bundle: Path, tmp_path: Path, folder: Path
) -> None:
    assert cli("bundle", "keygen", "--out", tmp_path / "owner").code == 0
    keys = ("--set", f"trust.keys={tmp_path / 'owner.pub'}")
    refused(command("install", tiny_bundle, *keys), "not signed, and this device requires it")
    bundle = tmp_path / "signed.evb"
    bundle.write_bytes(tiny_bundle.read_bytes())
    assert cli("bundle", "sign", bundle, "--key", tmp_path / "owner.key").code == 0
    assert command("install", bundle, *keys).code == 0
    assert cli("bundle", "keygen", "--out", tmp_path / "other").code == 0
    other = ("--set", f"trust.keys={tmp_path / 'other.pub'}")
    refused(command("activate", short(bundle), *other), "which is not trusted here")
    assert "which is not trusted here" in command("list", *other).out
    refused(command("list", "--set", f"trust.keys={bundle}"), bundle, "the key file cannot be read")


def test_a_damaged_bundle_is_listed_with_what_is_wrong(command: Command, tmp_path: Path, folder: Path) -> None:
    store = Store(folder)
    bundle_id = store.install(small_bundle.write(tmp_path / "small.evb"))
    (folder / "bundles" / bundle_id / "LICENSES.txt").write_text("free beer")
    (line,) = command("list").out.splitlines()
    assert line.startswith(bundle_id[:12]) and "LICENSES.txt does not match its hash" in line
    assert "does not match" in str(listed(command)[bundle_id[:12]]["error"])
    refused(command("activate", bundle_id), "LICENSES.txt does not match its hash")
