"""A profile as YAML text for people: every key, each with what it means behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edge_vad.profile import Profile
from edge_vad.strict import to_plain

COLUMN = 26  # where the comments begin
SECTIONS = {
    "inference": "what runs the encoder and searches the memory banks",
    "build": "defaults of edge-vad build for this device",
    "trust": "whose bundles run here (SECURITY.md)",
    "store": "the bundles on this device (docs/store.md)",
    "budget": "what edge-vad bench holds this device to (docs/bench.md); null: no bound",
}
MEANING = {
    "name": "of this profile",
    "description": "one line, for edge-vad profiles",
    "inference.backend": "onnxruntime | openvino | torch (docs/backends.md)",
    "inference.fallback": "BACKEND@DEVICE that may take over; [] for none",
    "inference.device": "cpu, cuda:0, tensorrt:0, gpu:0, npu (docs/backends.md)",
    "inference.threads": "of the backend on a CPU; frames are processed in one thread",
    "inference.bank": "auto | exact | hnsw | compact; auto: exact below the measured crossover in rows",
    "inference.precision": "fp32 | fp16: how the backend computes",
    "inference.engine_cache": "folder of engines compiled for this device; empty: the usual one",
    "build.precision": "int8 | fp16 | fp32: of the encoder or network in the bundle",
    "build.ratio": "part of the features that the coreset keeps",
    "build.stride": "every n-th frame is processed",
    "build.vectors": "bank rows at rest: fp16 | int8 | pq",
    "trust.signature": 'default | required | if-present | "off"; default: required once a key is installed',
    "trust.keys": "the folder of trusted NAME.pub files, or one of them",
    "trust.compatible": "what this device is: a bundle that names another is refused; empty takes all",
    "store.folder": "where bundles lie",
    "store.attempts": "starts before an unconfirmed bundle is given up",
    "store.confirm_s": "seconds of scored frames that confirm a new bundle",
    "store.self_test_s": "limit of the self-test's own process, seconds",
    "store.self_test_mb": "the same for its memory, MB",
    "budget.fps": "processed frames per second, at least (1000 / mean of the wall time)",
    "budget.p95_ms": "wall time of a processed frame that 95 % must not exceed",
    "budget.memory_mb": "peak resident memory of the process",
    "budget.temperature_c": "hottest reading, degrees Celsius",
}


def profile_text(profile: Profile, head: Sequence[str] = (), remarks: Mapping[str, str] | None = None) -> str:
    """YAML that `edge_vad.profile.load_profile` reads back as the same profile.

    head: lines of a comment at the top. remarks: of single values, by ``section.key``, behind what the key means.
    """
    remarks = remarks or {}
    lines = [f"# {line}".rstrip() for line in head]
    for key, value in to_plain(profile).items():
        if not isinstance(value, dict):
            lines.append(_line("", key, value, _comment(key, remarks)))
            continue
        lines += ["", f"{key + ':':<{COLUMN}} # {SECTIONS[key]}"]
        lines += [_line("  ", inner, held, _comment(f"{key}.{inner}", remarks)) for inner, held in value.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def _comment(path: str, remarks: Mapping[str, str]) -> str:
    return MEANING[path] + (f" ({remarks[path]})" if path in remarks else "")


def _line(indent: str, key: str, value: Any, comment: str) -> str:
    # JSON is YAML: every text that a profile may hold has quotes, and numbers stay what they are.
    return f"{f'{indent}{key}: {json.dumps(value, ensure_ascii=False)}':<{COLUMN}} # {comment}"
