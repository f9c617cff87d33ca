"""Units of a fleet on this machine: each a root of its own over this one's, with sshd on a loopback address of its own.

A unit sees this machine's files (overlayfs), writes into memory only, has its own processes, and `systemctl_stand_in` for a
systemd. The end of its first process is the end of everything in it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import update_parts
from update_parts import id_of

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOKS = ROOT / "firmware_examples" / "fleet_ansible"
PROGRAMS = ("unshare", "mount", "chroot", "ssh", "ssh-keygen", "tar")
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
STORE, DATA, KEYS, CONFIG = (
    "/var/lib/edge-vad",
    "/var/lib/edge-vad/data",
    "/etc/edge-vad/trusted.d",
    "/etc/edge-vad/device.yaml",
)

# $1: an empty folder; $2: megabytes of the medium that the store lies on; folders that may be other file systems here; --;
# the command. The first process of a unit is sshd.
MAKE = """
set -eu
top=$1 medium=$2
shift 2
mount -t tmpfs -o mode=755 unit "$top"
mkdir "$top/written" "$top/work" "$top/root"
root=$top/root
mount -t overlay -o "lowerdir=/,upperdir=$top/written,workdir=$top/work" unit "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for folder in /run /tmp /var/tmp; do mount -t tmpfs -o mode=1777 unit "$root$folder"; done
while [ "$1" != -- ]; do mkdir -p "$root$1" && mount --bind "$1" "$root$1" && shift; done
shift
rm -rf "$root/etc/edge-vad" "$root/opt/edge-vad" "$root/etc/systemd/system" "$root/root/.bashrc" "$root/root/.profile"
for folder in /run/sshd /run/systemd/system /etc/systemd/system /etc/edge-vad/trusted.d /var/lib/edge-vad; do
    mkdir -p "$root$folder"
done
mount -t tmpfs -o "size=${medium}m,mode=755" medium "$root/var/lib/edge-vad"
exec chroot "$root" "$@"
"""


def missing() -> str:
    """Why there can be no fleet here; empty where there can."""
    if os.geteuid() != 0:
        return "needs root: units are made of mount namespaces"
    for name in PROGRAMS:
        if shutil.which(name) is None:
            return f"needs the program {name}"
    if not Path("/usr/sbin/sshd").exists():
        return "needs sshd (apt-get install openssh-server)"
    if not ANSIBLE.exists():
        return "needs ansible-core (pip install ansible-core)"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", TRY], capture_output=True, text=True, check=False
    )
    return f"an overlay over / cannot be mounted here: {tried.stderr.strip()}" if tried.returncode else ""


TRY = """
mount -t tmpfs try /mnt
mkdir /mnt/u /mnt/w /mnt/m
mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w try /mnt/m
"""


@dataclass
class Unit:
    """One unit that answers. top: its folder here, where its files are only seen through `path`."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    pid: int

    def path(self, inside: str) -> Path:
        """A file of the unit, as this machine reaches it."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the unit, without the network."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", f"--root=/proc/{self.pid}/root", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


@dataclass
class Fleet:
    """Units, and how they are reached: an inventory for the playbooks of firmware_examples/fleet_ansible."""

    folder: Path
    owner: Path
    units: dict[str, Unit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("host", "control"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(words, check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def add(self, name: str, address: str, medium_mb: int = 64) -> Unit:
        """Boot one, without edge-vad."""
        top = self.folder / name
        top.mkdir()
        binds = [str(path) for path in {ROOT, Path(sys.prefix), Path(sys.base_prefix), self.folder}]
        options = {
            "ListenAddress": f"{address}:{self.port}",
            "HostKey": self.folder / "host",
            "AuthorizedKeysFile": self.folder / "control.pub",
            "PidFile": "none",
            "UsePAM": "no",
            "UseDNS": "no",
            "StrictModes": "no",
            "PermitRootLogin": "prohibit-password",
            "Subsystem": "sftp internal-sftp",
        }
        sshd = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *(f"-o{key}={value}" for key, value in options.items())]
        flags = ["--mount", "--pid", "--fork", "--kill-child"]
        making = ["unshare", *flags, "sh", "-c", MAKE, "sh", str(top), str(medium_mb), *binds, "--", *sshd]
        log = (self.folder / f"{name}.log").open("wb")
        process = subprocess.Popen(making, stdout=log, stderr=log)
        log.close()
        self._wait_for(process, name, address)
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        unit = self.units[name] = Unit(name, address, process, pid)
        update_parts.program(unit.path("/usr/bin/systemctl"), f'exec {sys.executable} -S {update_parts.STAND_IN} "$@"')
        shutil.copy(self.owner, unit.path(KEYS))
        return unit

    def install(self, unit: Unit, store: Path, camera: str = update_parts.CAMERA) -> None:
        """edge-vad on a unit, from this working tree, with a copy of a store and a running service."""
        update_parts.program(unit.path("/opt/edge-vad/current/bin/edge-vad"), f'exec {sys.executable} -m edge_vad "$@"')
        unit.path(CONFIG).write_text(update_parts.device_yaml(STORE, DATA, KEYS, camera=camera))
        unit.path("/etc/systemd/system/edge-vad.service").write_text(update_parts.service(CONFIG))
        shutil.copytree(store, unit.path(STORE), symlinks=True, dirs_exist_ok=True)
        started = unit.run("systemctl", "start", "edge-vad.service")
        assert started.returncode == 0, started.stderr

    def inventory(self, **more: dict[str, str]) -> Path:
        """The file for ansible-playbook. more: variables of single units."""
        reach = {
            "ansible_user": "root",
            "ansible_port": str(self.port),
            "ansible_ssh_private_key_file": str(self.folder / "control"),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder / 'known_hosts'}",
            "edge_vad_collected": str(self.folder / "collected"),
            "edge_vad_poll_s": "2",
        }
        public = (self.folder / "host.pub").read_text()
        known = [f"[{unit.address}]:{self.port} {public}" for unit in self.units.values()]
        (self.folder / "known_hosts").write_text("".join(known))
        path = self.folder / "inventory.ini"
        lines = ["[units]"]
        for unit in self.units.values():
            own = {"ansible_host": unit.address, **more.get(unit.name, {})}
            lines.append(f"{unit.name} " + " ".join(f"{key}={value}" for key, value in own.items()))
        path.write_text("\n".join([*lines, "[units:vars]", *(f"{key}={value}" for key, value in reach.items())]) + "\n")
        return path

    def end(self) -> None:
        for unit in self.units.values():
            unit.end()

    def _wait_for(self, process: subprocess.Popen[bytes], name: str, address: str) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((address, self.port), 1).close()
                return
            except OSError as error:
                said = (self.folder / f"{name}.log").read_text()
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{name} does not answer: {said}") from error
                time.sleep(0.1)


def play(units: Fleet, name: str, *arguments: str, **variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """One playbook, as an operator starts it. variables: of single units."""
    words = [str(ANSIBLE), "-i", str(units.inventory(**variables)), str(PLAYBOOKS / name), *arguments]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
        "ANSIBLE_HOME": str(units.folder / "ansible"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(units.folder / "cp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_RETRY_FILES_SAVE_PATH": str(units.folder),
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900, check=False)


def recap(said: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """By unit: how many tasks were ok, changed, failed, rescued..; a unit that was not touched is not there."""
    lines = said.stdout.partition("PLAY RECAP")[2].splitlines()[1:]
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {name.strip(): {k: int(v) for k, v in (word.split("=") for word in rest.split())} for name, rest in pairs}


def words(said: subprocess.CompletedProcess[str]) -> str:
    """What it said, however its lines were broken."""
    return " ".join(said.stdout.split())


def short(bundle: Path) -> str:
    return id_of(bundle)[:12]


def running(unit: Unit, limit_s: float = 90.0) -> tuple[str, int]:
    """How the id of the bundle begins that a unit's only camera runs, confirmed, and the process that runs it."""
    deadline = time.monotonic() + limit_s
    while True:
        said = unit.run("/opt/edge-vad/current/bin/edge-vad", "status", "--json")
        for status in json.loads(said.stdout or "[]"):
            [camera] = status["cameras"].values()
            if not status["stale"] and camera["state"] == "running" and not camera["reason"] and not camera["on_trial"]:
                return camera["bundle"]["id"], status["pid"]
        assert time.monotonic() < deadline, said.stdout + said.stderr
