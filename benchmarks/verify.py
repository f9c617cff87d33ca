"""CPU time of what happens before a bundle is used: limits, container, signature, hashes, bindings, the models' rules.

The bundle is made here: an encoder of one convolution and one bank of random rows, as large as asked, signed by a key that
is forgotten. It is read from a temporary folder with the policy ``required``, so from the page cache: no disk is measured.
CPU ms of this process, one thread. The parts are measured one by one on the same bytes. What is left over is
Python: the headers, the manifest, the rest of the ONNX gate.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import edge_vad
from edge_vad import archive, tensorfile
from edge_vad.bundle import Bundle, read_bundle, write_bundle
from edge_vad.files import read_regular
from edge_vad.manifest import GOLDEN, MANIFEST, PREPROCESSING, SIGNATURE, bank_hashes, canonical_json, fingerprint, sha256
from edge_vad.onnx_gate import check_model
from edge_vad.signature import Signature, generate
from edge_vad.trust import Trust

GOAL_MS = 150.0
DIMENSIONS, ENCODER_WEIGHTS = 152, (512, 3, 18, 18)  # 2 MB in float32
ENCODER, BANK = "encoder/encoder.onnx", "bank/spatial.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20.0, help="size of the bundle")
    parser.add_argument("--repeat", type=int, default=20, help="repetitions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "site.evb"
        trust = make(path, options.megabytes)
        bundle = read_bundle(path, trust)
        print(f"edge-vad {edge_vad.__version__}, Python {platform.python_version()}, {platform.machine()}")
        print(f"{path.stat().st_size / 1e6:.1f} MB, {len(bundle.members)} members, {bundle.signature}")
        whole = measure(lambda: read_bundle(path, trust), options.repeat)
        median = float(np.median(whole))
        print(f"read_bundle          min {min(whole):6.1f} ms   median {median:6.1f} ms   ({options.repeat} runs)")
        left = median
        for name, part in parts(path, bundle, trust).items():
            ms = float(np.median(measure(part, options.repeat)))
            left -= ms
            print(f"  {name:<26} {ms:8.2f} ms {ms / median:6.0%}")
        print(f"  {'everything else':<26} {left:8.2f} ms {left / median:6.0%}")
        print(f"goal {GOAL_MS:g} ms: {'reached' if median <= GOAL_MS else 'missed'}")


def make(path: Path, megabytes: float) -> Trust:
    """Write a signed bundle of about that size; returns the trust in its key."""
    generator = np.random.default_rng(0)
    model = encoder(generator.normal(size=ENCODER_WEIGHTS).astype(np.float32))
    preprocessing = canonical_json({"benchmark": True})
    features = fingerprint({"encoder": model}, preprocessing)
    n_rows = max(1, int((megabytes * 1e6 - len(model)) / (2 * DIMENSIONS)))
    rows = generator.normal(size=(n_rows, DIMENSIONS)).astype(np.float16)
    bank = tensorfile.save({"rows": rows}, {"features": features})
    bound = {"features": features, "banks": bank_hashes({"spatial": bank})}
    calibration = canonical_json(bound)
    golden = tensorfile.save({"images": np.zeros((1, 2, 2, 3), np.uint8)}, {**bound, "calibration": sha256(calibration)})
    members = {ENCODER: model, BANK: bank, PREPROCESSING: preprocessing, "calibration.json": calibration}
    members |= {GOLDEN: golden, "LICENSES.txt": b"none"}
    description = {
        "name": "benchmark",
        "serial": 1,
        "method": "videopatchcore",
        "written_by": "benchmarks/verify.py",
        "models": {"encoder": {"file": ENCODER, "name": "convolution"}},
        "banks": {"spatial": {"file": BANK, "rows": n_rows, "dimensions": DIMENSIONS, "vectors": "fp16"}},
        "footage": {"clips": 1, "frames_processed": 1, "ratio": 1.0},
    }
    written = write_bundle(path, members, description).members
    key = generate()
    signature = key.sign(written[MANIFEST], "benchmark")
    path.write_bytes(archive.pack({MANIFEST: written[MANIFEST], SIGNATURE: signature, **written}))
    return Trust("required", (key.public,))


def encoder(weights: np.ndarray) -> bytes:
    """image (n, 3, h, w) -> one convolution."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    tap = helper.make_tensor_value_info("tap", TensorProto.FLOAT, ["n", len(weights), "h2", "w2"])
    conv = helper.make_node("Conv", ["image", "weights"], ["tap"])
    graph = helper.make_graph([conv], "encoder", [image], [tap], [numpy_helper.from_array(weights, "weights")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def parts(path: Path, bundle: Bundle, trust: Trust) -> dict[str, Callable[[], object]]:
    """What read_bundle spends its time on."""
    members = bundle.members
    hashed = [data for name, data in members.items() if name not in (MANIFEST, SIGNATURE)]
    signature = Signature.parse(members[SIGNATURE], "benchmark")
    return {
        "reading the file": lambda: read_regular(path, archive.MAX_BYTES),
        "CRC-32 of the container": lambda: [zlib.crc32(data) for data in members.values()],
        "signature (Ed25519)": lambda: signature.verify(members[MANIFEST], trust.keys[0], "benchmark"),
        "SHA-256 of the members": lambda: [hashlib.sha256(data).digest() for data in hashed],
        "ONNX gate": lambda: check_model(members[ENCODER], "benchmark"),
    }


def measure(function: Callable[[], object], repeat: int) -> list[float]:
    """CPU ms of every run, after one to warm up."""
    function()
    found = []
    for _ in range(repeat):
        start = time.process_time_ns()
        function()
        found.append((time.process_time_ns() - start) / 1e6)
    return found


if __name__ == "__main__":
    main()
