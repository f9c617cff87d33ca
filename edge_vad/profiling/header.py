"""What a run was made with: bundle, settings, versions; and a whole report of it."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import edge_vad
from edge_vad import kernels
from edge_vad.backends.base import Backend
from edge_vad.bundle import Bundle
from edge_vad.detector import Detector
from edge_vad.plugins import load
from edge_vad.profile import Profile
from edge_vad.profiling.budget import verdicts
from edge_vad.profiling.compare import KIND, SCHEMA
from edge_vad.profiling.measurement import Measurement
from edge_vad.profiling.percentiles import PERCENTILES

T = TypeVar("T")


def make_report(
    measurement: Measurement,
    detector: Detector,
    bundle: Bundle,
    profile: Profile,
    source: str,
    percentiles: Sequence[float] = PERCENTILES,
) -> dict[str, Any]:
    """Everything that is known of a run as plain values; source: where its frames came from."""
    summary = measurement.summary(percentiles)
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "bundle": about(bundle),
        "settings": _settings(detector, profile, source),
        "versions": versions(profile),
        **summary,
        "budget": [verdict.plain() for verdict in verdicts(profile.budget, summary)],
    }


def versions(profile: Profile) -> dict[str, str]:
    """What computes: Python, edge-vad and its inner loops, NumPy and the package of the backend."""
    loops = "compiled" if kernels.LIBRARY else "NumPy"
    found = {"python": platform.python_version(), "edge-vad": edge_vad.__version__, "inner loops": loops}
    for package in ("numpy", load("backends", profile.inference.backend, Backend).package):
        if package:
            found[package] = _version(package)
    return found


def _version(package: str) -> str:
    """Of the module that is loaded: a package may be installed under another name, as onnxruntime-gpu."""
    told = getattr(sys.modules.get(package.replace("-", "_")), "__version__", None)
    try:
        return str(told or importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def main_model(models: Mapping[str, T], default: T) -> T:
    """Of models by role the one that costs the time: the encoder, or the network of a trained method."""
    return next((models[role] for role in ("encoder", "network") if role in models), default)


def about(bundle: Bundle) -> dict[str, Any]:
    """What names a bundle and says what is in it, as plain values."""
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "id": bundle.id,
        "serial": manifest.serial,
        "method": manifest.method,
        "models": {role: f"{model.name} {model.precision}" for role, model in manifest.models.items()},
        "image_size": list(bundle.image_size or ()) or None,
        "rows": {name: bank.rows for name, bank in manifest.banks.items()},
    }


def _settings(detector: Detector, profile: Profile, source: str) -> dict[str, Any]:
    inference = profile.inference
    return {
        "profile": profile.name,
        "backend": inference.backend,
        "device": inference.device,
        "threads": inference.threads,
        "precision": inference.precision,
        "bank": inference.bank,
        "banks": detector.bank_kinds,
        "source": source,
    }
