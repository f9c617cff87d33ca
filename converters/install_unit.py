"""Puts an overlay on this unit, or takes it back; runs on the unit as ``install.py`` beside ``overlay.json``.

Only Python's standard library is here when it starts. Each step can be cut off anywhere: running it again completes it.

    /opt/edge-vad/<id>/            a release: a virtual environment, and what the overlay configured, in overlay/
    /opt/edge-vad/current          link to the release that runs       /opt/edge-vad/previous  to the one before it
    /etc/edge-vad/                 device.yaml, profile.yaml, trusted.d
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OVERLAY = Path(__file__).resolve().parent
RELEASES = Path("/opt/edge-vad")
CURRENT, PREVIOUS = RELEASES / "current", RELEASES / "previous"
CONFIG = Path("/etc/edge-vad")
STATE = Path("/var/lib/edge-vad")
SYSTEMD = Path("/run/systemd/system")
SUMS = "SHA256SUMS"
DONE = "installed"  # in a release: everything in it is on the medium
# What a running unit imports: compiled now, since the service may not write beside its code, and nothing else is.
IMPORTED = "edge_vad.detector", "edge_vad.unit", "edge_vad.commands.run", "onnxruntime", "cv2", "cryptography"

# What no unit imports: a twentieth of all.
UNUSED = (
    "numpy/**/tests",
    "numpy/f2py",
    "numpy/*core/include",
    "numpy/*core/lib",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "**/*.pyi",
)


class Refused(Exception):
    """What is wrong, in one line, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="install.sh", description="install this overlay on this unit; needs no network")
    parser.add_argument("--check", action="store_true", help="only check that it is whole and made for this unit")
    parser.add_argument("--rollback", action="store_true", help="back to the release, configuration and bundles before")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    try:
        if options.rollback:
            return roll_back()
        release = check(OVERLAY)
        return say(f"{OVERLAY.name} {release.name} is whole, and made for this unit") if options.check else install(release)
    except Refused as error:
        sys.stderr.write(f"install.sh: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"install.sh: {error.filename}: {error.strerror}; when that is repaired, run it again\n")
        return 1


def check(overlay: Path) -> Path:
    """The release that this overlay makes. Raises Refused where it is not whole, or not for this machine."""
    try:
        sums = (overlay / SUMS).read_bytes()
        pairs = (line.split("  ", 1) for line in sums.decode().splitlines())
        listed = {name: told for told, name in pairs}
    except (OSError, ValueError) as error:
        raise Refused(f"{overlay / SUMS}: cannot be read ({error}); copy the overlay again") from error
    found = {str(path.relative_to(overlay)) for path in overlay.rglob("*") if path.is_file() or path.is_symlink()} - {SUMS}
    for name in sorted(found ^ set(listed)):
        raise Refused(f"{name}: is {'missing' if name in listed else 'not part of the overlay'}; copy the overlay again")
    for name, told in sorted(listed.items()):
        if digest(overlay / name) != told:
            raise Refused(f"{name}: is damaged; copy the overlay again")
    target = plan(overlay)["target"]
    here = {"architecture": platform.machine(), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    for what, value in here.items():
        if value != target[what]:
            raise Refused(f"made for {target['system']} ({what} {target[what]}), this is {what} {value}: provision another")
    return RELEASES / hashlib.sha256(sums).hexdigest()[:12]


def install(release: Path) -> int:
    with locked():
        described = plan(OVERLAY)
        changed = not (release / DONE).is_file()
        if changed:
            make_release(release, described)
        before, older = target_of(CURRENT), target_of(PREVIOUS)
        try:
            changed = apply(release) or changed
            activated = deliver(release, described, OVERLAY / "bundles")
            start(release, described, changed or bool(activated))
        except Refused:
            if before and before != release and before.is_dir():
                say(f"going back to {before.name}")
                go_back(before)
                link(PREVIOUS, older) if older else PREVIOUS.unlink(missing_ok=True)  # what failed is nothing to go back to
            raise
        mark(OVERLAY.with_name(f"{OVERLAY.name}.installed"), release.name)
        sweep()
    return say(f"{release.name} is installed" if changed or activated else f"{release.name}: nothing had to change")


def roll_back() -> int:
    with locked():
        before = target_of(PREVIOUS)
        if before is None or not (before / DONE).is_file():
            raise Refused(f"{PREVIOUS}: there is no release to go back to")
        go_back(before)
    return say(f"back to {before.name}")


def go_back(release: Path) -> None:
    """The release before, its configuration, and its bundles where other ones run now."""
    described = plan(release / "overlay")
    apply(release)
    for name, camera in described["cameras"].items():
        store = camera.get("store")
        if path := camera.get("path"):
            lay(release / "overlay/bundles" / camera["file"], Path(path))
        elif linked(Path(store) / "state/previous") == camera["id"]:
            vad(release, described, "store", "rollback", "--store", store)
            hand_over(Path(store))
            say(f"camera {name}: back to bundle {camera['id'][:12]}")
    start(release, described, True)


def make_release(release: Path, described: dict[str, Any]) -> None:
    """The virtual environment with the wheels, and a copy of what configures it."""
    free, needed = shutil.disk_usage(existing(release)).free, described["installed_bytes"]
    if free < needed:
        raise Refused(f"{release.parent}: {free // 10**6} MB are free, {needed // 10**6} MB are needed")
    shutil.rmtree(release, ignore_errors=True)  # of an installation that was cut off
    release.mkdir(parents=True)
    # Without Debian's python3-venv there is no pip to put into it; the overlay brings one, which runs from its wheel.
    # The system's packages stay visible: picamera2 and GStreamer come from them alone.
    run(sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(release))
    [pip] = (OVERLAY / "wheels").glob("pip-*.whl")
    locked_to = ["--require-hashes", "--requirement", str(OVERLAY / "requirements.txt")]
    where = ["--no-index", "--find-links", str(OVERLAY / "wheels"), *locked_to]
    how = ["--quiet", "--no-deps", "--no-compile", "--no-cache-dir", "--ignore-installed", "--root-user-action=ignore"]
    run(str(release / "bin/python"), str(pip / "pip"), "install", *how, *where)
    prune(release)
    run(str(release / "bin/python"), "-c", f"import {', '.join(IMPORTED)}")
    kept = release / "overlay"
    kept.mkdir()
    for name in ("overlay.json", "device.yaml", "profile.yaml"):
        if (OVERLAY / name).is_file():
            shutil.copy(OVERLAY / name, kept / name)
    shutil.copytree(OVERLAY / "trusted.d", kept / "trusted.d")
    (kept / "bundles").mkdir()
    for file in {camera["file"] for camera in described["cameras"].values() if "path" in camera}:  # a store keeps its own
        shutil.copy(OVERLAY / "bundles" / file, kept / "bundles" / file)
    os.sync()
    mark(release / DONE, "")
    say(f"{release}: {described['edge_vad']} for {described['target']['system']}")


def prune(release: Path) -> None:
    """Without the files that nothing on a unit reads."""
    for site in release.glob("lib/python*/site-packages"):
        for path in [path for pattern in UNUSED for path in site.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)  # it lay in a folder that is gone


def apply(release: Path) -> bool:
    """Its configuration and keys in place, and `current` at it. Whether anything was another before."""
    described = plan(release / "overlay")
    wanted = {CONFIG / "device.yaml": release / "overlay/device.yaml"}
    if described.get("profile"):
        wanted[Path(described["profile"])] = release / "overlay/profile.yaml"
    wanted |= {CONFIG / "trusted.d" / key.name: key for key in (release / "overlay/trusted.d").iterdir()}
    before = target_of(CURRENT)
    delivered = {path.read_bytes() for path in RELEASES.glob("*/overlay/device.yaml")}
    changed = [path for path, source in wanted.items() if not path.is_file() or path.read_bytes() != source.read_bytes()]
    for path in changed:
        if path == CONFIG / "device.yaml" and path.is_file() and path.read_bytes() not in delivered:
            replace(path, path.with_name("device.yaml.before"))
            say(f"{path} was changed here: kept as {path.name}.before")
        replace(wanted[path], path)
    if before != release:
        if before and (before / DONE).is_file():
            link(PREVIOUS, before)
        link(CURRENT, release)
    return bool(changed) or before != release


def deliver(release: Path, described: dict[str, Any], bundles: Path) -> list[str]:
    """Every camera's bundle in its store, activated, or at its path. The cameras that have got another one."""
    activated = []
    for name, camera in described["cameras"].items():
        bundle = bundles / camera["file"]
        if path := camera.get("path"):
            activated += [name] if lay(bundle, Path(path)) else []
            continue
        store = Path(camera["store"])
        if linked(store / "state/current") == camera["id"]:
            continue
        vad(release, described, "store", "install", str(bundle), "--store", str(store))
        vad(release, described, "store", "activate", camera["id"][:12], "--store", str(store))
        hand_over(store)
        activated.append(name)
    return activated


def lay(bundle: Path, path: Path) -> bool:
    """A bundle at the path that a configuration names. Whether another one was there."""
    if path.is_file() and digest(path) == digest(bundle):
        return False
    replace(bundle, path)
    return True


def start(release: Path, described: dict[str, Any], changed: bool) -> None:
    """The service as the configuration asks for it; where systemd runs, up with what changed. Raises Refused."""
    service = vad(release, described, "service", "install", "--config", str(CONFIG / "device.yaml"), "--no-start").split()[0]
    os.sync()
    if not SYSTEMD.is_dir():
        say(f"{service} starts with the system")
        return
    run("systemctl", "daemon-reload")
    if changed or subprocess.run(["systemctl", "is-active", "--quiet", service], check=False).returncode != 0:
        run("systemctl", "restart", service)  # returns when the unit watches, or says that it does not
        say(f"{service} runs")


def vad(release: Path, described: dict[str, Any], *arguments: str) -> str:
    """What edge-vad says, under the link `current` where that is its release: the service file names its Python."""
    python = (CURRENT if target_of(CURRENT) == release else release) / "bin/python"
    options = ["--profile", described["runs"]["profile"], *(f"--set={value}" for value in described["runs"]["set"])]
    return run(str(python), "-m", "edge_vad", *arguments, *(options if arguments[0] == "store" else []))


def hand_over(store: Path) -> None:
    """A store below the state folder belongs to the service; what root adds must stay writable for it."""
    if STATE.resolve() not in store.resolve().parents and store.resolve() != STATE.resolve():
        return
    owner = STATE.resolve().stat()
    for path in (store, *store.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def sweep() -> None:
    """Releases that are neither current nor previous."""
    keep = {target_of(CURRENT), target_of(PREVIOUS)}
    for path in RELEASES.iterdir():
        if path.is_dir() and not path.is_symlink() and path not in keep:
            shutil.rmtree(path)


def plan(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / "overlay.json").read_text())
    if described["format"] != 1:
        raise Refused(f"overlay.json: format {described['format']} is newer than this script; use the overlay's own")
    return described


@contextmanager
def locked() -> Iterator[None]:
    """Two installations at once would take each other's steps back."""
    RELEASES.mkdir(parents=True, exist_ok=True)
    with (RELEASES / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused("another installation runs; wait for it") from error
        yield


def run(*command: str) -> str:
    """What it prints. Raises Refused with the last line of its complaint."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Refused(f"{' '.join(command[:4])}: {lines[-1]}")
    return done.stdout


def replace(source: Path, path: Path) -> None:
    """Copy a file beside its place, with its mode, sync it, and rename it over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    shutil.copy(source, beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def link(path: Path, target: Path) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target.name)
    beside.replace(path)
    sync(path.parent)


def mark(path: Path, text: str) -> None:
    path.write_text(text)
    sync(path)
    sync(path.parent)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def target_of(path: Path) -> Path | None:
    return path.parent / path.readlink() if path.is_symlink() else None


def linked(path: Path) -> str:
    """The id that a link of a store leads to."""
    return path.readlink().name if path.is_symlink() else ""


def existing(path: Path) -> Path:
    return path if path.exists() else existing(path.parent)


def digest(path: Path) -> str:
    made = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            made.update(part)
    return made.hexdigest()


def say(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
