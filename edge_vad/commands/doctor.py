"""edge-vad doctor: whether this device is fit to run a unit, and what to do where it is not."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_vad import health, kernels
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.device import CameraSettings, Device, load_device
from edge_vad.errors import BundleError, EdgeVadError
from edge_vad.health import Check
from edge_vad.probe import try_backend, try_camera
from edge_vad.profile import Profile, load_profile
from edge_vad.status import find_units

EXIT_DOES_NOT_HOLD = 3
STANDS_FOR = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino"), "opencv-python-headless": ("opencv-python",)}
MODULES = {"opencv-python-headless": "cv2", "pyyaml": "yaml"}  # where it is not the package's name
SLOW = 0.8  # of the frame rate that was asked for
VIDEO, GPIO = ("v4l2", "picamera2", "csi", "gst", "/dev/video"), "gpio"


def main(arguments: Sequence[str]) -> int:
    parser = Parser("doctor", "edge-vad doctor --config device.yaml, or: edge-vad doctor --profile raspberry_pi_5")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="a unit: its cameras, bundles and folders too")
    add_profile(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.epilog = "exit codes: 0 nothing is bad, 3 something is; opens each camera for a few seconds"
    options = parser.parse_args(arguments)
    device = load_device(options.config) if options.config else None
    profile = load_profile(device.profile, (*device.set, *options.set)) if device else profile_of(options)
    found: list[Check] = []
    for check in examine(profile, device):
        found.append(check)
        if not options.json:
            sys.stdout.write(line(check) + "\n")
            sys.stdout.flush()
    counts = {state: sum(check.state == state for check in found) for state in ("ok", "warning", "bad")}
    if options.json:
        sys.stdout.write(json.dumps({"checks": [asdict(check) for check in found], **counts}, indent=2) + "\n")
    else:
        sys.stdout.write(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['bad']} bad\n")
    return EXIT_DOES_NOT_HOLD if counts["bad"] else 0


def line(check: Check) -> str:
    """A check for people."""
    text = f"{check.state:<8} {check.what:<20} {check.text}" + (f" -> {check.advice}" if check.advice else "")
    return "".join(c if c.isprintable() else "?" for c in text)


def examine(profile: Profile, device: Device | None = None) -> Iterator[Check]:
    """Every check, the quick ones first."""
    yield from health.board()
    yield health.wall_clock()
    yield from packages(profile, device)
    yield from disks(device)
    yield from health.permissions(_kinds(profile, device), health.User.me())
    yield from backends(profile)
    yield trusted_keys(profile)
    sizes: dict[str, tuple[int, int] | None] = {}
    for name, camera in device.cameras.items() if device else ():
        check, sizes[name] = bundle(name, camera, profile)
        yield check
    yield from cameras(device, sizes) if device else ()


def packages(profile: Profile, device: Device | None = None) -> Iterator[Check]:
    """What the profile needs, in which version, and the pip command of what is missing."""
    known = [found for name in ("numpy", "pyyaml", "safetensors") if (found := _version(name))]
    yield Check("ok", "packages", ", ".join(known))
    yield inner_loops()
    for package, why, needed in _wanted(profile, device):
        found, lowest = _version(package), _lowest(package)
        advice = f"pip install '{package}{f'>={lowest}' if lowest else ''}'"
        if found is None:
            yield Check("bad" if needed else "warning", "package", f"{package} is not installed; {why}", advice)
        elif lowest and _numbers(found.split()[-1]) < _numbers(lowest):
            yield Check("bad", "package", f"{found} is older than {lowest}; {why}", advice)
        else:
            yield Check("ok", "package", f"{found}; {why}")


def inner_loops() -> Check:
    """Whether what every frame runs through is compiled."""
    if kernels.LIBRARY:
        return Check("ok", "inner loops", "compiled")
    advice = (
        "install a C compiler (sudo apt-get install gcc), then: pip install --force-reinstall --no-binary edge-vad edge-vad"
    )
    return Check("warning", "inner loops", "not compiled: NumPy does their work, and a frame takes 40 % longer", advice)


def _wanted(profile: Profile, device: Device | None) -> Iterator[tuple[str, str, bool]]:
    """(package, what for, whether nothing works without it)."""
    from edge_vad.backends.base import Backend
    from edge_vad.plugins import load

    for name in dict.fromkeys(choice.backend for choice in profile.inference.choices):
        try:
            package = load("backends", name, Backend).package
        except EdgeVadError:
            continue  # the check of the backend itself says it
        if package:
            yield package, f"the backend {name}", True
    live = device is not None and any(not camera.source.startswith("synthetic") for camera in device.cameras.values())
    yield "opencv-python-headless", "cameras, videos, pictures", live
    if profile.inference.bank in ("auto", "hnsw"):
        yield "hnswlib", "fast search in large memory banks", profile.inference.bank == "hnsw"
    signed = profile.trust.signature == "required" or _has_keys(profile)
    yield "cryptography", "checking signatures of bundles", signed


def backends(profile: Profile) -> Iterator[Check]:
    """Whether the backends run a model on the device that the profile names, each in a process of its own."""
    inference = profile.inference
    for choice in inference.choices:
        name, device = choice
        found = try_backend(name, device, inference.threads, inference.on(choice).precision)
        on = f"runs a model on {device}, {inference.threads} threads"
        yield Check("bad", f"backend {name}", found["error"]) if "error" in found else Check("ok", f"backend {name}", on)


def trusted_keys(profile: Profile) -> Check:
    """Whose bundles run here."""
    trust, where = profile.trust, f"keys in {profile.trust.keys}"
    try:
        loaded = trust.load()
    except EdgeVadError as error:
        return Check("bad", "trust", str(error), "repair or remove that file")
    text = f"signatures are {loaded.policy}, {len(loaded.keys)} {where}"
    if loaded.policy == "required" and not loaded.keys:
        return Check(
            "bad", "trust", f"{text}: no bundle can run", f"sudo install -D -m 644 owner.pub {trust.keys}/owner.pub"
        )
    if loaded.policy == "required":
        return Check("ok", "trust", text)
    advice = f"install the owner's key: sudo install -D -m 644 owner.pub {trust.keys}/owner.pub"
    return Check("warning", "trust", f"{text}: whoever can write a bundle here decides what is seen", advice)


def bundle(name: str, camera: CameraSettings, profile: Profile) -> tuple[Check, tuple[int, int] | None]:
    """Whether a camera's bundle is whole, trusted, and works with this device's backend; and its picture size."""
    from edge_vad.bundle import read_bundle
    from edge_vad.self_test import check_in_child
    from edge_vad.store import Store

    what = f"bundle of {name}"
    try:
        if camera.store is None:
            path, state = Path(str(camera.bundle)), ""
            found = read_bundle(path, profile.trust.load())
        else:
            store = Store(Path(camera.store), profile.trust.load(), profile.store.attempts)
            if store.current is None:
                advice = "edge-vad store install site.evb, then edge-vad store activate ID"
                return Check("bad", what, f"{camera.store}: no bundle is active", advice), None
            path, found = store.folder / "bundles" / store.current, store.load(store.current)
            state = (
                "" if store.attempts_made is None else f", on trial, start {store.attempts_made} of {profile.store.attempts}"
            )
        check_in_child(path, found.id, profile)
    except BundleError as error:
        advice = "edge-vad store rollback, or install another one" if camera.store else "build or copy it again"
        return Check("bad", what, str(error), advice), None
    except EdgeVadError as error:
        return Check("bad", what, str(error)), None
    manifest = found.manifest
    text = f"{manifest.name} serial {manifest.serial}, {found.id[:12]}, {found.signature}, self-test passed{state}"
    return Check("ok", what, text), found.image_size


def cameras(device: Device, sizes: dict[str, tuple[int, int] | None]) -> Iterator[Check]:
    """Each camera, opened for a few seconds; those of a unit that runs are asked of the unit."""
    running = next((unit for unit in find_units(name=device.name) if not unit.stale), None)
    for name, settings in device.cameras.items():
        told = running.status.get("cameras", {}).get(name) if running else None
        if told:
            yield _watched(name, told, settings)
        else:
            yield camera_check(name, settings, try_camera(settings.source, settings.fps, sizes.get(name)), sizes.get(name))


def camera_check(name: str, settings: CameraSettings, found: dict[str, Any], wanted: tuple[int, int] | None = None) -> Check:
    """What was found of a camera against what is wanted of it."""
    what = f"camera {name}"
    if "error" in found:
        return Check("bad", what, found["error"])
    size, measured, stated = tuple(found["size"]), found["measured_fps"], found["fps"]
    text = f"{size[0]}x{size[1]}, {stated:g} fps stated" + (f", {measured:g} measured" if measured else "")
    if wanted and size != wanted:
        advice = f"set the camera to {wanted[0]}x{wanted[1]}, or build the bundle from its own footage"
        return Check("bad", what, f"{text}; the bundle is for {wanted[0]}x{wanted[1]}", advice)
    if not found["live"]:
        return Check("warning", what, f"{text}; stored footage, not a live camera", "name a camera in source:")
    asked = settings.fps or stated
    if measured and measured < SLOW * asked:
        advice = "more light shortens the exposure; or ask for less with fps:, or use another port or network"
        return Check("warning", what, f"{text}, {asked:g} wanted", advice)
    return Check("ok", what, text)


def _watched(name: str, told: dict[str, Any], settings: CameraSettings) -> Check:
    fps = told.get("fps", {}).get("captured", 0)
    text = f"{told.get('state')}, watched by the unit that runs: {fps:g} fps captured"
    reason = f": {told['reason']}" if told.get("reason") else ""
    fine = told.get("state") == "running" and not reason
    return Check(
        "ok" if fine else "bad", f"camera {name}", text + reason, "" if fine or reason else f"look at {settings.source}"
    )


def disks(device: Device | None) -> Iterator[Check]:
    """The data folder, and the stores that cameras take their bundles from."""
    if device is None:
        return
    if device.data:
        media = device.media
        kept = media.quota_mb + media.min_free_mb if media.snapshots or media.clips else 0
        yield health.disk(Path(device.data), device.log_quota_mb + kept, "data folder")
    else:
        yield Check(
            "warning", "data folder", "none: events are only sent, not kept", "name one with data: in the configuration"
        )
    for store in sorted({camera.store for camera in device.cameras.values() if camera.store}):
        yield health.disk(Path(store), 64, "store")


def _kinds(profile: Profile, device: Device | None) -> list[str]:
    """The device files that are needed."""
    sources = [camera.source for camera in device.cameras.values()] if device else ["/dev/video"]
    kinds = ["video"] * any(source.startswith(VIDEO) or source.isdigit() for source in sources)
    kinds += ["gpio"] * any(sink.startswith(GPIO) for sink in (device.sinks if device else ()))
    return kinds + ["render"] * (profile.inference.device != "cpu")


def _has_keys(profile: Profile) -> bool:
    try:
        return any(Path(profile.trust.keys).glob("*.pub")) or Path(profile.trust.keys).is_file()
    except OSError:
        return True


def _version(package: str) -> str | None:
    """Name and version of a package, or of one that stands for it; None when there is none."""
    for name in (package, *STANDS_FOR.get(package, ())):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return package if find_spec(MODULES.get(package, package.replace("-", "_"))) else None


def _lowest(package: str) -> str | None:
    """The lowest version of a package that edge-vad works with, as its own metadata says."""
    try:
        stated = importlib.metadata.requires("edge-vad") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (re.match(rf"{re.escape(package)}>=([\d.]+)", text) for text in stated)
    return next((match[1] for match in found if match), None)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)] or [10**6]  # unknown: let it pass
