"""The smallest bundle that is whole: everything about the file can be checked, nothing can be scored."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edge_vad import tensorfile
from edge_vad.bundle import make_manifest, write_bundle
from edge_vad.manifest import MANIFEST, bank_hashes, canonical_json, fingerprint, sha256


@cache
def encoder() -> bytes:
    """image (1, 3, 4, 4) -> image + 1."""
    import tiny
    from onnx import helper

    one = np.ones(1, np.float32)
    shape = {"image": [1, 3, 4, 4]}
    return tiny.model([helper.make_node("Add", ["image", "one"], ["tap"])], {"one": one}, shape, {"tap": [1, 3, 4, 4]})


def members(
    model: bytes | None = None, preprocessing: bytes = b'{"size":[1,2]}', rows: float = 1.0, serial: int = 0
) -> dict[str, bytes]:
    """Members that belong together; serial only makes another content."""
    model = model or encoder()
    features = fingerprint({"encoder": model}, preprocessing)
    bank = tensorfile.save({"rows": np.full((2, 3), rows, np.float16)}, {"features": features})
    bound = {"features": features, "banks": bank_hashes({"spatial": bank})}
    calibration = canonical_json(bound)
    golden = {**bound, "calibration": sha256(calibration)}
    return {
        "encoder/encoder.onnx": model,
        "bank/spatial.safetensors": bank,
        "preprocessing.json": preprocessing,
        "calibration.json": calibration,
        "golden/golden.safetensors": tensorfile.save({"images": np.zeros((1, 2, 2, 3), np.uint8)}, golden),
        "LICENSES.txt": f"free {serial}".encode(),
    }


DESCRIPTION: dict[str, Any] = {
    "name": "site",
    "serial": 1,
    "method": "videopatchcore",
    "written_by": "a test",
    "models": {"encoder": {"file": "encoder/encoder.onnx", "name": "add"}},
    "banks": {"spatial": {"file": "bank/spatial.safetensors", "rows": 2, "dimensions": 3, "vectors": "fp16"}},
    "footage": {"clips": 1, "frames_processed": 1, "ratio": 1.0},
}


def write(path: Path, serial: int = 1) -> Path:
    """A bundle; another serial is another bundle."""
    write_bundle(path, members(serial=serial), {**DESCRIPTION, "serial": serial})
    return path


def manifest() -> dict[str, Any]:
    return make_manifest(members(), DESCRIPTION)


def with_manifest(changed: dict[str, Any], contents: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """The members of a bundle under another manifest."""
    contents = members() if contents is None else contents
    return {MANIFEST: canonical_json(changed), **{name: contents[name] for name in sorted(contents)}}
