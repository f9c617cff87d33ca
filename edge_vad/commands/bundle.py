"""edge-vad bundle: what is in a bundle, and whether it is whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.detector import Detector


def main(arguments: Sequence[str]) -> int:
    parser = Parser("bundle", "edge-vad bundle inspect|verify site.evb")
    parser.add_argument("action", choices=("inspect", "verify"))
    parser.add_argument("bundle", metavar="FILE.evb")
    parser.add_argument("--json", action="store_true", help="inspect: the manifest and the calibration as JSON")
    add_profile(parser)
    options = parser.parse_args(arguments)
    bundle = read_bundle(options.bundle)
    if options.action == "verify":
        Detector.open(bundle, profile_of(options))
        sys.stdout.write(
            f"{options.bundle}: whole: {len(bundle.members)} members, all hashes and bindings hold, self-test passed\n"
        )
    elif options.json:
        described = {
            "manifest": bundle.manifest,
            "calibration": bundle.calibration,
            "preprocessing": bundle.preprocessing,
        }
        sys.stdout.write(json.dumps(described, indent=2, sort_keys=True) + "\n")
    else:
        sys.stdout.write(describe(bundle))
    return 0


def describe(bundle: Bundle) -> str:
    """The bundle for people: method, encoder, banks, threshold, sizes."""
    manifest, calibration = bundle.manifest, bundle.calibration["calibration"]
    size = bundle.preprocessing["image_size"]
    tail, footage = calibration["tail"], manifest["footage"]
    lines = [
        f"name       {manifest['name']} (serial {manifest['serial']}, schema {_schema(manifest)}, {manifest['written_by']})",
        f"method     {manifest['method']}, {size[0]}x{size[1]} pixels, a frame every {bundle.calibration['period_s']:g} s",
    ]
    for role, model in sorted(manifest["models"].items()):
        details = [str(model["name"])]
        if "precision" in model:
            details.append(
                f"{model['precision']}, taps {', '.join(model['taps'])}, cosine to fp32 {model['cosine_to_fp32']}"
            )
        lines.append(f"{role:<10} {'; '.join(details)}, {len(bundle.model(role)):,} bytes")
    for name, bank in sorted(manifest["banks"].items()):
        stored = len(bundle.members[bank["file"]])
        lines.append(
            f"bank       {name:<16} {bank['rows']:>7,} rows x {bank['dimensions']} ({bank['vectors']}), {stored:,} bytes"
        )
    weights = ", ".join(f"{name} {c['weight']:g}" for name, c in sorted(calibration["components"].items()))
    lines += [
        f"weights    {weights}",
        f"threshold  1.0 = {tail['threshold']:.2f} deviations ({tail['low']:.2f} to {tail['high']:.2f}, 90 %): "
        f"{tail['budget_per_hour']:g} false alarms per hour, from {60 * tail['hours']:.1f} minutes",
        f"footage    {footage['clips']} clips, {footage['frames_processed']} frames, coreset {footage['ratio']:.0%}",
        f"features   {manifest['features'][:16]}",
        f"size       {bundle.n_bytes:,} bytes",
    ]
    return "\n".join(lines) + "\n"


def _schema(manifest: dict[str, Any]) -> str:
    return ".".join(str(part) for part in manifest["schema"])
