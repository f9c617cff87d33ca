"""The playbooks of firmware_examples/fleet_ansible, run against units that answer over SSH: stages, stop and rollback."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fleet
import pytest
import update_parts
import yaml
from fleet import PLAYBOOKS, Fleet, Unit, play, recap, running, short, words
from update_parts import OTHER_SIZE, Releases, id_of

from edge_vad.cli import main
from edge_vad.store import Store

OTHER_CAMERA = update_parts.CAMERA.replace("180x120", "{}x{}".format(*OTHER_SIZE))

why_not = fleet.missing()
needs_units = pytest.mark.skipif(bool(why_not), reason=why_not)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, footage: Path, tiny_encoder: Path) -> Releases:
    return Releases.make(tmp_path_factory.mktemp("releases"), footage, tiny_encoder)


def confirmed_store(folder: Path, bundle: Path, keys: Path) -> Path:
    options = ["--store", str(folder), "--set", f"trust.keys={keys}"]
    assert main(["store", "install", str(bundle), *options]) == 0
    assert main(["store", "activate", id_of(bundle), *options]) == 0
    assert main(["store", "confirm", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Iterator[Fleet]:
    """unit-1 to unit-6, each with a running service. unit-3 has another camera than the others, with a bundle of its own."""
    folder = tmp_path_factory.mktemp("fleet")
    made = Fleet(folder, releases.owner)
    usual = confirmed_store(folder / "usual", releases.first, releases.owner)
    other = confirmed_store(folder / "other", releases.other, releases.owner)
    try:
        for number in range(1, 7):
            unit = made.add(f"unit-{number}", f"127.0.0.1{number}")
            if number == 3:
                made.install(unit, other, OTHER_CAMERA)
            else:
                made.install(unit, usual)
        yield made
    finally:
        made.end()


def bundles(unit: Unit) -> set[str]:
    return {path.name for path in unit.path(f"{fleet.STORE}/bundles").iterdir()}


@pytest.mark.skipif(not fleet.ANSIBLE.exists(), reason="needs ansible-core")
def test_the_playbooks_and_the_inventory_of_the_example_are_read(tmp_path: Path) -> None:
    playbooks = sorted(path.name for path in PLAYBOOKS.glob("*.yml") if path.name != "inventory.yml")
    assert playbooks == ["bundle.yml", "collect.yml", "rollback.yml", "update.yml"]
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    words = [str(fleet.ANSIBLE), "--list-hosts", *playbooks]
    said = subprocess.run(words, cwd=PLAYBOOKS, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert said.returncode == 0 and said.stdout.count("hosts (6)") == len(playbooks), said.stdout + said.stderr
    told = (PLAYBOOKS / "README.md").read_text(encoding="utf-8")
    assert not [name for name in playbooks if f"ansible-playbook {name}" not in told]
    defaults = yaml.safe_load((PLAYBOOKS / "roles/edge_vad/defaults/main.yml").read_text(encoding="utf-8"))
    assert {name for name in defaults if f"`{name}`" not in told} == {
        *("edge_vad_command", "edge_vad_config", "edge_vad_releases", "edge_vad_staging")  # of the unit: nobody changes them
    }


@needs_units
def test_a_bad_unit_stops_the_rollout_and_returns(six: Fleet, releases: Releases) -> None:
    """Stages of 1, 2 and the rest; the second one has the unit whose camera does not fit the new bundle."""
    before = {name: running(unit) for name, unit in six.units.items()}
    impatient = {"unit-3": {"edge_vad_health_s": "6"}}
    said = play(six, "bundle.yml", "-e", f"edge_vad_bundle={releases.second}", **impatient)
    assert said.returncode == 2, said.stdout + said.stderr
    told = recap(said)
    for name in ("unit-1", "unit-2"):
        assert running(six.units[name])[0] == short(releases.second), f"{name} confirmed it before the stop, and keeps it"
        assert told[name]["failed"] == 0
    assert running(six.units["unit-3"])[0] == short(releases.other), "the bad one runs the bundle before"
    assert running(six.units["unit-3"])[1] != before["unit-3"][1]
    assert told["unit-3"]["failed"] == told["unit-3"]["rescued"] == 1
    given_up = Store(six.units["unit-3"].path(fleet.STORE)).last_rollback
    assert (given_up["from"], given_up["to"]) == (id_of(releases.second), id_of(releases.other))
    assert f"unit-3 runs {id_of(releases.other)[:12]}" in words(said)
    for name in ("unit-4", "unit-5", "unit-6"):
        assert told.get(name, {}).get("ok", 0) == 0, "the last stage did not begin"
        assert running(six.units[name]) == before[name], "the same process runs the same bundle"
        assert bundles(six.units[name]) == {id_of(releases.first)}
    collected = six.folder / "collected" / "unit-3"
    records = [json.loads(line) for line in (collected / "events.jsonl").read_text().splitlines()]
    assert ("camera", "resized") in [(record["type"], record["kind"]) for record in records], "what told against it"
    assert json.loads((collected / "status.json").read_text())[0]["cameras"]["gate"]["bundle"]["id"] == short(releases.other)


@needs_units
def test_what_is_not_whole_or_not_the_owners_changes_nothing(six: Fleet, releases: Releases) -> None:
    """A bundle without a signature, one that is not what was released, and a unit whose disk is full."""
    names = ("unit-4", "unit-5", "unit-6")
    before = {name: running(six.units[name]) for name in names}
    full = six.units["unit-6"].path(f"{fleet.STORE}/full")
    with pytest.raises(OSError, match="No space"), full.open("wb") as file:
        file.write(bytes(2**27))
    try:
        said = play(
            six,
            *("bundle.yml", "--limit", ",".join(names), "-e", '{"edge_vad_stages": [3]}'),
            **{
                "unit-4": {"edge_vad_bundle": str(releases.unsigned)},
                "unit-5": {"edge_vad_bundle": str(releases.second), "edge_vad_sha256": "0" * 64},
                "unit-6": {"edge_vad_bundle": str(releases.second)},
            },
        )
    finally:
        full.unlink()
    assert said.returncode == 2, said.stdout + said.stderr
    for name, reason in zip(names, ("not signed", "its SHA-256 is not edge_vad_sha256", "No space left"), strict=True):
        assert reason in words(said), name
        assert recap(said)[name]["failed"] == 1
        assert running(six.units[name]) == before[name], "the same process runs the same bundle"
        assert bundles(six.units[name]) == {id_of(releases.first)}
        assert not six.units[name].path("/var/tmp/edge-vad-update").exists()


@needs_units
def test_a_repaired_rollout_goes_on_where_it_stopped(six: Fleet, releases: Releases) -> None:
    """unit-3 gets the camera of the others; then all units run the release, and those that did so before are left alone."""
    six.units["unit-3"].path(fleet.CONFIG).write_text(update_parts.device_yaml(fleet.STORE, fleet.DATA, fleet.KEYS))
    before = {name: running(six.units[name]) for name in ("unit-1", "unit-2")}
    said = play(six, "bundle.yml", "-e", '{"edge_vad_stages": ["100%"]}', "-e", f"edge_vad_bundle={releases.second}")
    assert said.returncode == 0, said.stdout + said.stderr
    assert {running(unit)[0] for unit in six.units.values()} == {short(releases.second)}
    assert {name: running(six.units[name]) for name in before} == before
    assert [name for name, told in recap(said).items() if told["changed"]] == ["unit-3", "unit-4", "unit-5", "unit-6"]


@needs_units
def test_a_unit_that_does_not_answer_stops_the_next_stage(six: Fleet, releases: Releases) -> None:
    """Ansible itself goes on as long as one unit of a stage is left."""
    stages = (
        "--limit",
        "unit-1,unit-2,unit-5",
        "-e",
        '{"edge_vad_stages": [2]}',
        "-e",
        f"edge_vad_bundle={releases.second}",
    )
    said = play(six, "bundle.yml", *stages, **{"unit-2": {"ansible_host": "127.0.0.99"}})
    told = recap(said)
    assert said.returncode != 0 and told["unit-2"]["unreachable"] == 1, said.stdout + said.stderr
    assert told["unit-1"]["failed"] == 0 and told["unit-5"]["ok"] == 0 and "not begun: see unit-2" in words(said), (
        said.stdout
    )


@needs_units
def test_events_and_status_are_collected_once(six: Fleet, releases: Releases) -> None:
    """All records of a unit, each once however often it is asked; and a rollback by hand is among them."""
    one = six.units["unit-1"]
    assert play(six, "rollback.yml", "--limit", "unit-1").returncode == 0
    assert running(one)[0] == short(releases.first)
    for _ in range(2):
        said = play(six, "collect.yml", "--limit", "unit-1,unit-3")
        assert said.returncode == 0, said.stdout + said.stderr
    for name in ("unit-1", "unit-3"):
        folder = six.folder / "collected" / name
        records = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1)), name
        [status] = json.loads((folder / "status.json").read_text())
        assert status["cameras"]["gate"]["bundle"]["id"] == running(six.units[name])[0]
    [first] = [
        r for r in map(json.loads, (six.folder / "collected/unit-1/events.jsonl").read_text().splitlines()) if r["seq"] == 1
    ]
    assert (first["type"], first["kind"]) == ("unit", "started")
