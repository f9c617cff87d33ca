"""edge-vad bundle: what is in a bundle, whose it is, and whether it works here."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.difference import differences
from edge_vad.errors import BundleFormatError, KeyFileError, OutputError, SelfTestError
from edge_vad.files import write_atomically
from edge_vad.manifest import SIGNATURE
from edge_vad.self_test import check_in_child
from edge_vad.signature import generate
from edge_vad.signing import PASSWORD, ask_password, sign_bundle
from edge_vad.trust import Trust, load_trust

EXIT_DOES_NOT_HOLD = 3
IMPORTING = "edge_vad.converters.importing"  # by name: the runtime does not know the converters


def main(arguments: Sequence[str]) -> int:
    parser = Parser("bundle", "edge-vad bundle inspect|verify|check|diff|sign|keygen|import ... --help")
    actions = parser.add_subparsers(dest="action", required=True, parser_class=ArgumentParser)
    for name, (function, add_options, text) in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        add_options(action)
        action.set_defaults(function=function)
    options = parser.parse_args(arguments)
    return int(options.function(options))


def inspect(options: Namespace) -> int:
    bundle = read_bundle(options.bundle)
    if options.json:
        described = {
            "id": bundle.id,
            "manifest": asdict(bundle.manifest),
            "calibration": bundle.calibration,
            "preprocessing": bundle.preprocessing,
        }
        sys.stdout.write(json.dumps(described, indent=2, sort_keys=True) + "\n")
        return 0
    try:
        sys.stdout.write(describe(bundle))
    except (LookupError, TypeError, ValueError) as error:
        raise BundleFormatError(f"{options.bundle}: calibration or preprocessing without {error}; build it again") from error
    return 0


def verify(options: Namespace) -> int:
    trust = _trust(options)
    bundle = read_bundle(options.bundle, trust)
    _say(
        f"{options.bundle}: holds: {len(bundle.manifest.files)} files by size and hash, bindings, "
        f"{len(bundle.manifest.models)} models within the rules; {bundle.signature} (policy {trust.policy})"
    )
    return 0


def check(options: Namespace) -> int:
    profile = profile_of(options)
    bundle = read_bundle(options.bundle, _trust(options))
    try:
        check_in_child(options.bundle, bundle.id, profile)
    except SelfTestError as error:
        sys.stderr.write(f"edge-vad bundle: {error}\n")
        return EXIT_DOES_NOT_HOLD
    _say(f"{options.bundle}: works here: golden self-test passed with {profile.inference.backend} ({profile.name})")
    return 0


def diff(options: Namespace) -> int:
    lines = differences(read_bundle(options.bundle), read_bundle(options.other))
    _say("\n".join(lines) if lines else "the same content")
    return 0


def sign(options: Namespace) -> int:
    public, comment = sign_bundle(options.bundle, options.key, ask_password)
    _say(f"{options.bundle}: signed by key {public.label}; trusted comment: {comment}")
    return 0


def keygen(options: Namespace) -> int:
    if not options.out.name:
        raise OutputError(f"{options.out}: is a folder; name the keys, such as {options.out / 'site'}")
    secret, public = (options.out.with_name(options.out.name + suffix) for suffix in (".key", ".pub"))
    for path in (secret, public):
        if path.exists():
            raise OutputError(f"{path}: is there already; a key is never overwritten: name another one")
    password = ask_password() if options.password else ""
    if options.password and not password:
        raise KeyFileError("an empty password protects nothing; leave --password out, or give one")
    key = generate()
    write_atomically(secret, key.text(password).encode(), 0o600)
    write_atomically(public, key.public.text().encode())
    _say(f"{secret}: keep it secret ({'with' if password else 'no'} password)\n{public}: install it on the devices")
    return 0


def import_memory(options: Namespace) -> int:
    return int(importlib.import_module(IMPORTING).import_memory(options))


def _bundle_option(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="FILE.evb")


def _inspect_options(parser: ArgumentParser) -> None:
    _bundle_option(parser)
    parser.add_argument("--json", action="store_true", help="manifest, calibration and preprocessing as JSON")


def _trust_options(parser: ArgumentParser) -> None:
    _bundle_option(parser)
    parser.add_argument("--trusted", type=Path, metavar="NAME.pub|DIR", help="require a signature by one of these keys")
    add_profile(parser)


def _diff_options(parser: ArgumentParser) -> None:
    _bundle_option(parser)
    parser.add_argument("other", type=Path, metavar="OTHER.evb")


def _sign_options(parser: ArgumentParser) -> None:
    _bundle_option(parser)
    parser.add_argument("--key", type=Path, required=True, metavar="NAME.key", help="a secret key, of minisign too")


def _keygen_options(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="NAME", help="writes NAME.key and NAME.pub")
    parser.add_argument("--password", action="store_true", help=f"encrypt the key (asks, or takes ${PASSWORD})")


def _import_options(parser: ArgumentParser) -> None:
    parser.usage = "edge-vad bundle import --vpc-banks banks/ --encoder FILE.onnx --normal footage/ --out site.evb"
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--vpc-banks", nargs="+", type=Path, metavar="DIR",
        help="folders with VideoPatchCore's spatial|temporal|highlevel_memory_bank_RATIO.pt",
    )  # fmt: skip
    source.add_argument("--anomalib", type=Path, metavar="FILE", help="PatchCore of anomalib: ONNX, or a state dict")
    parser.add_argument("--encoder", required=True, metavar="FILE.onnx", help="the encoder that filled the banks")
    parser.add_argument("--taps", metavar="A,B", help="its outputs, in the order of the banks' dimensions")
    parser.add_argument(
        "--normal", nargs="+", metavar="PATH", help="normal footage of the camera, for all that no bank holds"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.evb", help="the bundle to write")
    parser.add_argument("--banks", metavar="A,B", help="only these, such as spatial (default: all that have a weight)")
    parser.add_argument("--ratio", dest="kept", type=float, help="part of the imported rows to keep (default: all)")
    parser.add_argument("--precision", choices=("int8", "fp16", "fp32"), help="of the encoder (default: fp32)")
    parser.add_argument("--fps", type=float, help="frames per second of the footage (pictures carry none; default 10)")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="build settings (docs/build.md)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for unfinished work (default: FILE.evb.work)")
    add_profile(parser)


ACTIONS: dict[str, tuple[Callable[[Namespace], int], Callable[[ArgumentParser], None], str]] = {
    "inspect": (inspect, _inspect_options, "what is in it"),
    "verify": (verify, _trust_options, "whether it is whole, and whose it is; runs nothing of it"),
    "check": (
        check,
        _trust_options,
        "whether it works here: the golden self-test with this device's backend, in a limited child",
    ),
    "diff": (diff, _diff_options, "what changed between two: encoder, banks, thresholds, sizes"),
    "sign": (sign, _sign_options, "sign its manifest, inside the bundle"),
    "keygen": (keygen, _keygen_options, "a new pair of keys, in minisign's formats"),
    "import": (import_memory, _import_options, "a bundle around the memory of VideoPatchCore or anomalib"),
}


def describe(bundle: Bundle) -> str:
    """The bundle for people: method, encoder, banks, threshold, sizes."""
    manifest, scored = bundle.manifest, bundle.calibration
    calibration, size = scored["calibration"], bundle.image_size
    tail, footage = calibration["tail"], manifest.footage
    pixels = f"{size[0]}x{size[1]} pixels, " if size else ""
    schema = ".".join(map(str, manifest.schema))
    lines = [
        f"name       {manifest.name} (serial {manifest.serial}, schema {schema}, {manifest.written_by})",
        f"method     {manifest.method}, {pixels}a frame every {scored['period_s']:g} s",
    ]
    for role, model in sorted(manifest.models.items()):
        details = [model.name, model.precision]
        if model.taps:
            details.append(f"taps {', '.join(model.taps)}, cosine to fp32 {model.cosine_to_fp32}")
        lines.append(f"{role:<10} {'; '.join(details)}, {len(bundle.model(role)):,} bytes")
    for name, bank in sorted(manifest.banks.items()):
        stored = len(bundle.members[bank.file])
        graph = bundle.graph(name)
        index = f", search graph {len(graph):,} bytes" if graph else ""
        lines.append(
            f"bank       {name:<16} {bank.rows:>7,} rows x {bank.dimensions} ({bank.vectors}), {stored:,} bytes{index}"
        )
    memorised = f"{footage.frames_processed} frames, coreset {footage.ratio:.0%}"
    trained = "network" in manifest.models and "encoder" not in manifest.models
    weights = ", ".join(f"{name} {c['weight']:g}" for name, c in sorted(calibration["components"].items()))
    lines += [
        f"weights    {weights}",
        f"threshold  1.0 = {tail['threshold']:.2f} deviations ({tail['low']:.2f} to {tail['high']:.2f}, 90 %): "
        f"{tail['budget_per_hour']:g} false alarms per hour, from {60 * tail['hours']:.1f} minutes",
        f"footage    {footage.clips} clips, {f'{footage.frames_processed} windows of a training' if trained else memorised}",
        f"signature  {'signed; whose it is: edge-vad bundle verify' if SIGNATURE in bundle.members else 'none'}",
        f"id         {bundle.id}",
        f"size       {bundle.n_bytes:,} bytes",
    ]
    return "\n".join(lines) + "\n"


def _trust(options: Namespace) -> Trust:
    """The keys of --trusted, all of them required; else what the profile says."""
    if options.trusted is None:
        return profile_of(options).trust.load()
    if not options.trusted.exists():
        raise KeyFileError(f"{options.trusted}: no such key file or folder")
    return load_trust(options.trusted, "required")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
