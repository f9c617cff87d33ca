"""edge-vad provision: everything that a unit needs, in one file, for a unit without a network."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_vad.converters.overlay import Parts, check_parts, write_overlay
from edge_vad.converters.targets import TARGETS, Target, target_of
from edge_vad.converters.wheels import COMPILED, cache_folder, wheels_of

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.commands.options import Parser
from edge_vad.device import Device, load_device
from edge_vad.errors import ProfileError, ProvisionError, did_you_mean
from edge_vad.files import check_writable
from edge_vad.profile import Profile, load_profile, names
from edge_vad.service import check_paths
from edge_vad.trust import trust_of


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        "provision",
        "edge-vad provision --profile raspberry_pi_5 --bundle site.evb --config device.yaml --out overlay.tar [options]",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.yaml", help="the unit (docs/live.md)")
    parser.add_argument(
        "--bundle",
        action="append",
        required=True,
        metavar="[CAMERA=]FILE.evb",
        help="of every camera, or of one; repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.tar", help="the overlay to write")
    parser.add_argument("--profile", metavar="NAME|FILE", help="the configuration's (default), or the file of its own one")
    parser.add_argument(
        "--target", metavar="NAME", help=f"what the unit runs: {', '.join(TARGETS)} (default: usual for the profile)"
    )
    parser.add_argument(
        "--trust", action="append", default=[], type=Path, metavar="FILE.pub", help="a key whose bundles the unit takes"
    )
    parser.add_argument(
        "--wheel",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.whl",
        help="one more, or in the place of its package",
    )
    parser.add_argument("--without", action="append", default=[], choices=COMPILED, help="leave this package out")
    options = parser.parse_args(arguments)
    check_writable(options.out)
    device = load_device(options.config)
    check_paths(options.config, device)
    profile, profile_file = profile_of(options, device)
    target = target_of(options.target, profile.name)
    files = bundles_of(options.bundle, device)
    bundles = read_bundles(files, options.trust, profile)
    for path in options.wheel:
        if not path.is_file():
            raise ProvisionError(f"{path}: there is no such wheel")
    wheels = wheels_of(target, groups(target, profile), options.wheel, options.without, cache_folder())
    parts = Parts(target, device, options.config, bundles, files, options.trust, wheels, profile_file)
    check_parts(parts)
    made = write_overlay(options.out, parts)
    sys.stdout.write(said(options, target, made))
    return 0


def profile_of(options: Namespace, device: Device) -> tuple[Profile, Path | None]:
    """The profile of the unit, and the file that holds it where it is not a built-in one. Raises ProfileError."""
    own = device.profile not in names()
    wanted = options.profile or device.profile
    if not own and wanted != device.profile:
        raise ProfileError(
            f"{options.config}: profile: {device.profile}, but --profile {wanted}: write it into the configuration"
        )
    if own and options.profile is None:
        raise ProfileError(
            f"{options.config}: profile: {device.profile}: give the file that shall lie there: --profile FILE.yaml"
        )
    profile = load_profile(wanted, list(device.set))
    return profile, Path(wanted) if own else None


def bundles_of(given: Sequence[str], device: Device) -> dict[str, Path]:
    """The bundle of each camera: its own one, else that of all. Raises ProfileError."""
    named: dict[str, Path] = {}
    for text in given:
        name, split, path = text.rpartition("=")
        if split and name not in device.cameras:
            raise ProfileError(
                f"--bundle {text}: no camera {name!r}{did_you_mean(name, device.cameras)} in the configuration"
            )
        if name in named:
            raise ProfileError(f"--bundle {text}: there is {named[name]} already; write CAMERA=FILE.evb for each camera")
        named[name] = Path(path)
    files = {name: named.get(name) or named.get("") for name in device.cameras}
    if missing := [name for name, path in files.items() if path is None]:
        raise ProfileError(f"camera {missing[0]} has no bundle: --bundle {missing[0]}=FILE.evb")
    return {name: path for name, path in files.items() if path}


def read_bundles(files: Mapping[str, Path], keys: Sequence[Path], profile: Profile) -> dict[str, Bundle]:
    """Each bundle, verified as the unit will verify it. Raises BundleError or KeyFileError."""
    trust = trust_of(keys, profile.trust.signature, profile.trust.compatible)
    return {name: read_bundle(path, trust) for name, path in files.items()}


def groups(target: Target, profile: Profile) -> list[str]:
    """Which packages of the lock: boards have pins, and OpenVINO is there where it is asked for."""
    asked = {choice.backend for choice in profile.inference.choices}
    if "torch" in asked:
        raise ProvisionError("the backend torch is not part of overlays (900 MB and more): use onnxruntime or openvino")
    return ["base", *(["gpio"] if target.architecture == "aarch64" else []), *(["openvino"] if "openvino" in asked else [])]


def said(options: Namespace, target: Target, made: str) -> str:
    size = options.out.stat().st_size / 1e6
    return (
        f"{options.out}: {size:.1f} MB, {made}, for {target.system}\n"
        f"on the unit: tar -xf {options.out.name} && sudo sh edge-vad-overlay/install.sh\n"
    )
