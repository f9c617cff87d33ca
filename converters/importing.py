"""edge-vad bundle import: a memory that somebody already has, as a bundle. Its options are in edge_vad.commands.bundle."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import closing

from edge_vad.converters.build import build
from edge_vad.converters.build_command import clips_of, settings_of
from edge_vad.converters.engine import open_engine
from edge_vad.converters.imports import KINDS, Imported, read_anomalib, read_videopatchcore, thinned

from edge_vad.commands.options import profile_of
from edge_vad.errors import ForeignMemoryError, ProfileError, did_you_mean

log = logging.getLogger(__name__)


def import_memory(options: Namespace) -> int:
    """Read the banks, and build with them in the place of the footage's own."""
    if not options.normal:
        raise ForeignMemoryError(
            "a memory alone has no threshold, no perspective and no self-test: film normal footage with the camera that "
            "will watch, and name it with --normal PATH"
        )
    # Rows and queries must come from the same numbers, and others filled their memory in full precision.
    settings = settings_of(options, profile_of(options), precision="fp32")
    if options.jobs is not None and options.jobs < 1:
        raise ProfileError(f"--jobs must be at least 1, not {options.jobs}")
    imported = _read(options, settings.weights)
    if options.kept is not None:
        if not 0 < options.kept <= 1:
            raise ProfileError(f"--ratio: the part of the imported rows to keep must lie in 0..1, not {options.kept:g}")
        imported = thinned(imported, options.kept)
    with closing(open_engine("local", options.jobs)) as engine:
        bundle = build(clips_of(options.normal), options.out, settings, engine=engine, work=options.work, imported=imported)
    banks = ", ".join(
        f"{name} {entry.rows}x{entry.dimensions} ({'imported' if name.removeprefix('object_') in imported else 'footage'})"
        for name, entry in sorted(bundle.manifest.banks.items())
    )
    sys.stdout.write(f"{options.out}: {bundle.n_bytes / 1e6:.2f} MB; banks: {banks}\n")
    return 0


def _read(options: Namespace, weights: Mapping[str, float]) -> dict[str, Imported]:
    """The banks that --banks names, or those with a weight: nothing would search the others."""
    kinds = options.banks.split(",") if options.banks else [kind for kind in KINDS if weights.get(kind, 0) > 0]
    for kind in kinds:
        if kind not in KINDS:
            raise ProfileError(f"--banks: no bank {kind!r} can be imported{did_you_mean(kind, KINDS)}")
    if not kinds:
        raise ProfileError("weights: no bank that can be imported has a weight; give spatial one")
    if options.anomalib:
        found = read_anomalib(options.anomalib)
    else:
        left_out = [kind for kind in KINDS if kind not in kinds]
        if left_out and not options.banks:
            log.info("not imported, as it has no weight (weights in --config): %s", ", ".join(left_out))
        found = read_videopatchcore(options.vpc_banks, kinds)
    missing = [kind for kind in kinds if kind not in found]
    if options.banks and missing:
        raise ForeignMemoryError(f"--banks: no {missing[0]} bank there; found {', '.join(found)}")
    return found
