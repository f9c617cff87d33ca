"""What decides the features of a clip besides the clip: scene settings, models, cuts, and the code itself."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import edge_vad
from edge_vad import converters, tensorfile
from edge_vad.backends.base import Backend
from edge_vad.errors import BundleFormatError
from edge_vad.features import Encoder
from edge_vad.manifest import canonical_json, sha256
from edge_vad.object_detector import ObjectDetector
from edge_vad.plugins import load, require
from edge_vad.streams import Extractor, Settings
from edge_vad.strict import from_plain, to_plain


@dataclass(frozen=True, slots=True)
class Recipe:
    """How features are made and kept. models: role -> ONNX bytes; fps: stated for the footage; n_cuts: parts that a clip
    is cut into where it is long enough; code: `code_version` of whoever wrote it."""

    scene: Settings
    models: Mapping[str, bytes]
    ratio: float
    fps: float | None
    n_cuts: int
    code: str

    def save(self) -> bytes:
        """One file; equal recipes give equal bytes."""
        said = {"scene": to_plain(self.scene), "ratio": self.ratio, "fps": self.fps, "n_cuts": self.n_cuts}
        models = {role: np.frombuffer(data, dtype=np.uint8) for role, data in self.models.items()}
        return tensorfile.save(models, {"code": self.code, "settings": canonical_json(said).decode()})

    @classmethod
    def load(cls, data: bytes, where: str) -> Recipe:
        """What `save` wrote."""
        models, said = tensorfile.load(data, where)
        settings = json.loads(said["settings"])
        scene = from_plain(Settings, settings.pop("scene"), where, BundleFormatError)
        return cls(scene, {role: array.tobytes() for role, array in models.items()}, code=said["code"], **settings)

    def extractor(self) -> Extractor:
        """The runtime's own feature code. One thread: what runs beside it must not change a single bit."""
        backend = load("backends", "onnxruntime", Backend)
        objects = None
        if self.scene.objects:
            objects = ObjectDetector(backend(self.models["detector"], threads=1), self.scene.objects)
        encoder = Encoder(backend(self.models["encoder"], threads=1), self.scene.preprocessing)
        return Extractor(self.scene, encoder, objects, memorise=True)


@functools.cache
def code_version() -> str:
    """Hash of this code and the versions of the packages that compute: features of others are not mixed with ours."""
    lines = [f"{name} {sha256(path.read_bytes())}" for name, path in sorted(_sources())]
    packages = {"numpy": "numpy", "cv2": "opencv-python-headless", "onnxruntime": "onnxruntime"}
    lines += [f"{name} {require(name, package, 'edge-vad build').__version__}" for name, package in packages.items()]
    return sha256("\n".join(lines).encode())


def _sources() -> Iterator[tuple[str, Path]]:
    """The modules by a name that does not depend on how the package was installed."""
    for package in (edge_vad, converters):
        for folder in map(Path, package.__path__):
            for path in folder.rglob("*.py"):
                name = f"{package.__name__}/{path.relative_to(folder)}"
                if not name.startswith("edge_vad/converters/"):
                    yield name, path
