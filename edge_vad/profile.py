"""One device's settings, from YAML, strictly: what changes speed and budgets, never what a feature means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from edge_vad.errors import BackendError, PluginError, ProfileError, did_you_mean
from edge_vad.plugins import load
from edge_vad.strict import check_range, from_plain
from edge_vad.trust import Trust, load_trust


class Choice(NamedTuple):
    """A backend on a device, written ``onnxruntime@cuda:0``."""

    backend: str
    device: str

    def __str__(self) -> str:
        return f"{self.backend}@{self.device}"


@dataclass(frozen=True, slots=True)
class Inference:
    """What runs the encoder and the search. threads: of the backend; device: cpu, cuda:N and others (docs/backends.md).

    fallback: ``BACKEND`` or ``BACKEND@DEVICE`` that may take over, each only after it has passed the self-test; without a
    device it is that of this one. bank: auto, exact or hnsw. precision: how a backend computes what is not INT8.
    engine_cache: folder of what is compiled for this device (TensorRT, OpenVINO on a GPU); empty: the usual one.
    """

    backend: str = "onnxruntime"
    fallback: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1
    bank: str = "auto"
    precision: Literal["fp32", "fp16"] = "fp32"
    engine_cache: str = ""

    def __post_init__(self) -> None:
        # The first one is tried at once and says itself what is wrong; these would be missed in the hour of need.
        for choice in self.choices[1:]:
            _check_fallback(choice)
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"fallback: one backend twice: {', '.join(map(str, self.choices))}; name each once")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The backend and those that may take over, in their order."""
        entries = (entry.partition("@") for entry in self.fallback)
        others = (Choice(name, device if at else self.device) for name, at, device in entries)
        return (Choice(self.backend, self.device), *others)

    def on(self, choice: Choice) -> Inference:
        """These settings with one of the choices; a fall-back on a CPU computes in fp32, as few CPUs know anything else."""
        first = choice == self.choices[0]
        precision = "fp32" if choice.device == "cpu" and not first else self.precision
        return replace(self, backend=choice.backend, device=choice.device, precision=precision, fallback=())


@dataclass(frozen=True, slots=True)
class Build:
    """Defaults of ``edge-vad build`` for this device. stride: every n-th frame is processed."""

    precision: Literal["int8", "fp16", "fp32"] = "int8"
    ratio: float = 0.01
    stride: int = 2
    vectors: Literal["fp16", "int8", "pq"] = "fp16"


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
class Budget:
    """What ``edge-vad bench`` holds this device to; None: no bound.

    fps: processed frames per second that it must manage. p95_ms: wall time of one processed frame, end to end, that 95 %
    of them must not exceed. memory_mb: peak resident memory of the process. temperature_c: the hottest reading of a run.
    """

    fps: float | None = None
    p95_ms: float | None = None
    memory_mb: float | None = None
    temperature_c: float | None = None

    def __post_init__(self) -> None:
        bounds = {"fps": self.fps, "p95_ms": self.p95_ms, "memory_mb": self.memory_mb, "temperature_c": self.temperature_c}
        check_range(1e-3, 1e6, **bounds)


@dataclass(frozen=True, slots=True)
class Profile:
    """A device. description: one line for ``edge-vad profiles``."""

    name: str
    description: str
    inference: Inference = field(default_factory=Inference)
    build: Build = field(default_factory=Build)
    trust: TrustSettings = field(default_factory=TrustSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    budget: Budget = field(default_factory=Budget)


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


def _check_fallback(choice: Choice) -> None:
    """ValueError where a backend of edge-vad does not exist or never has such a device; others are known to their owner."""
    from edge_vad.backends.base import Backend, split_device

    if not choice.backend or not choice.device or "@" in choice.device:
        raise ValueError(f"fallback: {str(choice)!r} is not BACKEND or BACKEND@DEVICE, such as onnxruntime@cpu")
    if "." in choice.backend:
        return
    try:
        split_device(choice.backend, choice.device, load("backends", choice.backend, Backend).devices)
    except (PluginError, BackendError) as error:
        raise ValueError(f"fallback: {error}") from error


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
