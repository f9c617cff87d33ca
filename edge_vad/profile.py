"""One device's settings, from YAML, strictly: what changes speed and budgets, never what a feature means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from edge_vad.errors import ProfileError, did_you_mean
from edge_vad.strict import from_plain
from edge_vad.trust import Trust, load_trust


@dataclass(frozen=True, slots=True)
class Inference:
    """What runs the encoder and the search. threads: of the backend; device: cpu or cuda:N; bank: auto, exact or hnsw.

    fallback: backends that may take over when this one fails at work, each only after it has passed the self-test.
    """

    backend: str = "onnxruntime"
    fallback: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1
    bank: str = "auto"


@dataclass(frozen=True, slots=True)
class Build:
    """Defaults of ``edge-vad build`` for this device. stride: every n-th frame is processed."""

    precision: Literal["int8", "fp32"] = "int8"
    ratio: float = 0.01
    stride: int = 2
    vectors: Literal["fp16", "int8"] = "fp16"


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Whose bundles run here. signature: what is asked of them (default: required once a trusted key is installed).

    keys: a ``.pub`` file, or the folder of them. compatible: bundles made for other devices than this are refused.
    """

    signature: Literal["default", "required", "if-present", "off"] = "default"
    keys: str = "/etc/edge-vad/trusted.d"
    compatible: str = ""

    def load(self) -> Trust:
        """The keys and the policy; raises KeyFileError."""
        return load_trust(Path(self.keys), self.signature, self.compatible)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The store of bundles on the device. folder: where it lies; attempts: starts before an unconfirmed bundle is given up.

    confirm_s: seconds of scored frames after which a new bundle is confirmed. self_test_s, self_test_mb: limits of the
    self-test's own process.
    """

    folder: str = "/var/lib/edge-vad"
    attempts: int = 3
    confirm_s: float = 60.0
    self_test_s: float = 120.0
    self_test_mb: int = 2048

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.confirm_s < 0 or self.self_test_s <= 0 or self.self_test_mb < 64:
            raise ValueError("attempts, self_test_s must be positive, confirm_s not negative, self_test_mb at least 64")


@dataclass(frozen=True, slots=True)
class Profile:
    """A device. description: one line for ``edge-vad profiles``."""

    name: str
    description: str
    inference: Inference = field(default_factory=Inference)
    build: Build = field(default_factory=Build)
    trust: TrustSettings = field(default_factory=TrustSettings)
    store: StoreSettings = field(default_factory=StoreSettings)


def names() -> list[str]:
    """The profiles that come with edge-vad."""
    folder = resources.files("edge_vad.profiles")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_profile(name: str, overrides: Iterable[str] = ()) -> Profile:
    """The profile of that name, or of that YAML file; overrides are ``key.key=value``. Raises ProfileError."""
    if name in names():
        text = (resources.files("edge_vad.profiles") / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            raise ProfileError(f"no profile named {name!r}{did_you_mean(name, names())}; a .yaml file works too")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"{name}: the profile cannot be read: {error}") from error
    values = parse_yaml(text, name)
    for override in overrides:
        _override(values, override)
    return from_plain(Profile, values, f"profile {name}", ProfileError)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """YAML text as keys and values; raises ProfileError on one line."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ProfileError(
            f"{where}: not valid YAML{line}: {getattr(error, 'problem', None) or 'cannot be parsed'}"
        ) from error
    if not isinstance(values, dict):
        raise ProfileError(f"{where}: expected keys and values")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals:
        raise ProfileError(f"--set {override}: write key.key=value")
    *parents, last = path.split(".")
    for key in parents:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ProfileError(f"--set {override}: {key!r} holds a value, not keys")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProfileError(f"--set {override}: the value is not valid YAML; put it in quotes") from error
