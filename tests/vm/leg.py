"""A unit in a virtual machine: installed offline, unplugged, hung, and cut off from power three times.

Run by `make test-vm`, never by `make test`: it takes half an hour. The tests are one story, in their order.

Acknowledged are the records that a reader on the host has received before a cut, from `edge-vad events --follow --json`
over a port of the machine. Each of them has to be in the event log when the machine is up again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from disk import Disk, Kept
from footage import as_disk, bundle, normal_footage, overlay
from image import Image, image
from machine import Machine

from edge_vad.bundle import read_bundle

NEEDED = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs")
VAD = "/opt/edge-vad/current/bin/edge-vad"
DATA, STORE, SERVICE = "/var/lib/edge-vad/vm", "/var/lib/edge-vad/gate", "edge-vad-vm.service"
FOLLOW = (
    f"systemd-run --unit vm-follow --property Restart=always --property RestartSec=2 --property StartLimitIntervalSec=0 \
sh -c 'exec {VAD} events {DATA} --follow --json > /dev/virtio-ports/vm.events'"
)
SLOW_S = 1800.0  # emulation, on a busy machine
ODD = "v4l2-ctl --device /dev/video0 --set-ctrl test_pattern=4,horizontal_movement=5"
USUAL = "v4l2-ctl --device /dev/video0 --set-ctrl test_pattern=0,horizontal_movement=3"


@dataclass
class Site:
    """The unit's disk, and the machine that runs it at the moment."""

    image: Image
    folder: Path
    disk: Disk
    bundles: list[Path]
    overlay: Path
    machine: Machine | None = None
    acknowledged: set[str] = field(default_factory=set)

    def power_on(self, *files: Path) -> Machine:
        self.machine = Machine(self.image, self.disk, self.folder, files)
        say(f"boot: commands after {self.machine.boot_s:.0f} s")
        return self.machine

    def cut(self) -> Kept:
        """The power goes; what had reached the host until then is what was acknowledged."""
        assert self.machine
        kept = self.machine.cut()
        self._remember()
        say(f"power cut: {kept.lost_bytes} bytes not flushed, lost; {len(self.acknowledged)} records acknowledged")
        return kept

    def shut_down(self) -> None:
        assert self.machine
        self.machine.shut_down()
        self._remember()

    def lost(self) -> set[str]:
        """Acknowledged records that are not in the event log."""
        assert self.machine
        return self.acknowledged - set(self.machine.must(f"{VAD} events {DATA} --json").splitlines())

    def _remember(self) -> None:
        assert self.machine
        self.acknowledged |= {text for _, text in self.machine.events.received if text.startswith("{")}
        self.machine = None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    missing = [name for name in NEEDED if shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin") is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install qemu-system-x86 qemu-utils mmdebstrap e2fsprogs")
    if os.geteuid() != 0:
        pytest.skip("needs root: the files of the machine's disk belong to it")
    folder = tmp_path_factory.mktemp("vm")
    made = image()
    normal = normal_footage(made, folder)
    bundles = [bundle(normal, folder / f"{serial}.evb", serial) for serial in (1, 2)]
    unit = Site(made, folder, Disk(folder / "disk.raw", made.disk), bundles, overlay(folder, bundles[0]))
    yield unit
    if unit.machine:
        unit.machine.close()


def test_an_installation_that_lost_power_is_completed_by_running_it_again(site: Site) -> None:
    machine = site.power_on(site.overlay)
    machine.must(f"tar -xf /dev/vdb -C /root && sync && {slower()}")
    half_way = "/opt/edge-vad/*/lib/python3.*/site-packages/numpy"
    begun = "systemd-run --unit vm-install sh /root/edge-vad-overlay/install.sh"
    machine.must(f"{begun} && until [ -d {half_way} ]; do sleep 0.2; done", SLOW_S)
    site.cut()

    machine = site.power_on(site.overlay)
    assert machine.run("systemctl is-active edge-vad-vm")[0] != 0
    assert machine.run("test -e /opt/edge-vad/current")[0] != 0, "the cut came too late to be one"
    began = time.monotonic()
    said = machine.must("sh /root/edge-vad-overlay/install.sh", SLOW_S)
    say(f"install.sh: {time.monotonic() - began:.0f} s: {said.splitlines()[-1]}")
    say(f"  to the first frames scored: {time.monotonic() - began + scoring(machine):.0f} s")
    assert machine.must(f"{VAD} status")


def test_a_second_installation_changes_nothing(site: Site) -> None:
    machine = running(site)
    before = machine.must(f"systemctl show --property MainPID {SERVICE}")
    assert "nothing had to change" in machine.must("sh /root/edge-vad-overlay/install.sh", SLOW_S)
    assert machine.must(f"systemctl show --property MainPID {SERVICE}") == before


def test_a_camera_that_was_unplugged_is_connected_again(site: Site) -> None:
    machine = running(site)
    follow(machine)
    _, back = awaited(machine, ["camera lost", "camera back"], "v4l2-ctl --device /dev/video0 --set-ctrl disconnect=1")
    say(f"camera unplugged: frames again after {back['gap_s']} s")
    scoring(machine)


def test_a_unit_that_hangs_is_ended_by_the_watchdog_and_started_again(site: Site) -> None:
    machine = running(site)
    machine.must(slower("WatchdogSec=20"))
    machine.must(f"systemctl restart {SERVICE}", SLOW_S)
    scoring(machine)
    began = time.monotonic()
    awaited(machine, ["unit started"], f"kill -STOP $(systemctl show --property MainPID --value {SERVICE})")
    assert machine.must(f"systemctl show --property NRestarts --value {SERVICE}").strip() == "1"
    assert "Watchdog timeout" in machine.must(f"journalctl --unit {SERVICE} --no-pager")
    say(f"watchdog of 20 s: the stopped process was ended, the next one watched after {time.monotonic() - began:.0f} s")
    scoring(machine)
    machine.must(slower())
    site.shut_down()


def test_the_service_starts_with_the_machine(site: Site) -> None:
    machine = site.power_on(as_disk(site.bundles[1]))
    scoring(machine)
    say(f"boot: first frames scored after {time.monotonic() - machine.started:.0f} s")
    assert site.lost() == set()


def test_an_activation_that_lost_power_leaves_a_bundle_that_runs(site: Site) -> None:
    machine = running(site)
    old, new = (read_bundle(path).id for path in site.bundles)
    machine.must("tar -xf /dev/vdb -C /root")
    machine.must(f"{VAD} store install /root/2.evb --store {STORE}", SLOW_S)
    follow(machine)
    # The process is stopped as soon as its first step, the trial record, is to be seen: the power goes between two steps.
    trial = f"{STORE}/state/trial.json"
    seen = f'until [ -e {trial} ] && read text < {trial}; case "$text" in *{new}*) true;; *) false;; esac; do :; done'
    said = machine.must(
        f"{VAD} store activate {new[:12]} --store {STORE} >/dev/null 2>&1 & {seen}; kill -STOP $!; ls -l {STORE}/state",
        SLOW_S,
    )
    say("cut off in store activate: " + " ".join(line.split(maxsplit=8)[-1] for line in said.splitlines() if "->" in line))
    site.cut()

    machine = site.power_on()
    scoring(machine)
    say(f"boot after the cut: first frames scored after {time.monotonic() - machine.started:.0f} s")
    runs = camera(machine.must("cat /run/edge-vad/vm/vm.json"))["bundle"]["id"]
    say(f"it runs the {'new' if new.startswith(runs) else 'old'} bundle")
    assert old.startswith(runs) or new.startswith(runs)
    assert site.lost() == set()
    if old.startswith(runs):
        machine.must(f"{VAD} store activate {new[:12]} --store {STORE} && systemctl restart {SERVICE}", SLOW_S)
    machine.wait(f"{VAD} events {DATA} --type bundle --json | grep confirmed | grep {new[:12]}", SLOW_S)
    follow(machine)


def test_no_acknowledged_record_is_lost_when_the_power_goes_while_events_are_written(site: Site) -> None:
    machine = running(site)
    machine.must(f"systemd-run --unit vm-events sh -c 'while :; do {ODD}; sleep 3; {USUAL}; sleep 4; done'")
    before = len(anomalies(machine))
    deadline = time.monotonic() + SLOW_S
    while len(anomalies(machine)) < before + 10:
        assert time.monotonic() < deadline, "no events"
        time.sleep(0.02)
    site.cut()  # right after a record has come

    machine = site.power_on()
    scoring(machine)
    say(f"boot after the cut: first frames scored after {time.monotonic() - machine.started:.0f} s")
    lost = site.lost()
    say(f"acknowledged records: {len(site.acknowledged)}, lost: {len(lost)}")
    assert lost == set()
    site.shut_down()


def running(site: Site) -> Machine:
    if site.machine is None:
        pytest.fail("the test before has left no machine")
    return site.machine


def slower(*more: str) -> str:
    """A drop-in with the one limit of the service that emulation does not keep, and others."""
    lines = "\\n".join(["[Service]", "TimeoutStartSec=900", *more])
    return f"mkdir -p /etc/systemd/system/{SERVICE}.d && printf '{lines}\\n' > /etc/systemd/system/{SERVICE}.d/vm.conf && \
sync && systemctl daemon-reload"


def scoring(machine: Machine) -> float:
    """Seconds until the unit has scored three more frames than now."""
    began = time.monotonic()
    first: dict[int, int] = {}
    while time.monotonic() - began < SLOW_S:
        code, text = machine.run("cat /run/edge-vad/vm/vm.json")
        if code == 0 and camera(text)["state"] == "running":
            process, n_scored = json.loads(text)["pid"], camera(text)["scored"]
            if n_scored >= first.setdefault(process, n_scored) + 3:
                return time.monotonic() - began
        time.sleep(1)
    pytest.fail(f"no frames are scored: {text}\n{machine.run(f'journalctl --unit {SERVICE} --no-pager | tail -40')[1]}")


def camera(status: str) -> dict[str, Any]:
    """Of the text of a status file."""
    found: dict[str, Any] = json.loads(status)["cameras"]["gate"]
    return found


def follow(machine: Machine) -> None:
    """Have the records come over the port, and wait for those that are there already."""
    machine.must(FOLLOW)
    n_records = len(machine.must(f"{VAD} events {DATA} --json").splitlines())
    deadline = time.monotonic() + SLOW_S
    while len(machine.records()) < n_records:
        assert time.monotonic() < deadline, machine.run("journalctl --unit vm-follow --no-pager")[1]
        time.sleep(0.2)


def awaited(machine: Machine, kinds: list[str], do: str) -> list[dict[str, Any]]:
    """The first records of each type and kind that come after ``do``."""
    seen = len(machine.records())
    machine.must(do)
    deadline = time.monotonic() + SLOW_S
    while time.monotonic() < deadline:
        come = {f"{record['type']} {record['kind']}": record for record in reversed(machine.records()[seen:])}
        if come.keys() >= set(kinds):
            return [come[kind] for kind in kinds]
        time.sleep(0.2)
    pytest.fail(f"of {kinds} there are {machine.records()[seen:]}")


def anomalies(machine: Machine) -> list[dict[str, Any]]:
    return [record for record in machine.records() if record["type"] == "anomaly"]


def say(text: str) -> None:
    print(f"  {text}", flush=True)
