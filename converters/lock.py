"""python -m edge_vad.converters.lock

Resolves the packages of every target anew (make locks) and writes locks/NAME.txt: one line for each wheel, by version and
hash. The versions that the test suite runs with (constraints.txt) are taken where the target has them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_vad.converters.targets import TARGETS, Target
from edge_vad.converters.wheels import COMPILED, download, pinned

from edge_vad.manifest import sha256

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "base": [
        "numpy", "pyyaml", "safetensors", "onnxruntime", "opencv-python-headless", "cryptography", "paho-mqtt>=2", "pip",
        *COMPILED,
    ],
    "gpio": ["gpiozero>=2"],  # what it drives the pins with, lgpio, comes with Raspberry Pi OS
    "openvino": ["openvino"],
}  # fmt: skip
# What a target's own packages or Python force. bookworm: its picamera2 is compiled for NumPy 1.
INSTEAD = {
    "raspberry_pi_os_bookworm": {"numpy": "numpy==1.26.4", "opencv-python-headless": "opencv-python-headless==4.11.0.86"},
    "jetpack_6": {"numpy": "numpy<2.3", "onnxruntime": "onnxruntime==1.23.2", "openvino": "openvino<2026"},
}


def main() -> int:
    for target in TARGETS.values():
        lines = [f"# {target.system}, Python {target.python}. Written by: make locks"]
        known: set[str] = set()
        for group, packages in GROUPS.items():
            found = [line for line in _resolved(target, packages, known) if line.split("==")[0] not in known]
            known.update(line.split("==")[0] for line in found)
            lines += [f"# [{group}]", *found]
        target.lock.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sys.stdout.write(f"{target.lock}: {len(known)} packages\n")
    return 0


def _resolved(target: Target, packages: list[str], known: set[str]) -> list[str]:
    """``name==version --hash=sha256:...`` of everything that the packages need there, one hash each."""
    instead = INSTEAD.get(target.name, {})
    wanted = [instead.get(re.split(r"[<>=]", package)[0], package) for package in packages]
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = [
        line for line in tested if line.split("==")[0] not in instead and not line.startswith(("#", "setuptools"))
    ]
    constraints += list(instead.values())
    with TemporaryDirectory() as folder:
        (Path(folder) / "in.txt").write_text("\n".join(wanted))
        (Path(folder) / "constraints.txt").write_text("\n".join(constraints))
        command = ["uv", "pip", "compile", "in.txt", "--constraint", "constraints.txt", "--generate-hashes", "--quiet"]
        command += ["--no-header", "--no-annotate", "--only-binary", ":all:", "--no-binary", "hnswlib"]
        command += ["--no-emit-package", "setuptools"]
        command += ["--python-version", target.python, "--python-platform", _uv_platform(target), "--output-file", "out.txt"]
        subprocess.run(command, cwd=folder, check=True)
        text = (Path(folder) / "out.txt").read_text().replace("\\\n", "")
        (Path(folder) / "wheels").mkdir()
        wheels = [line for line in text.splitlines() if line.split("==")[0] not in COMPILED]
        download(target, wheels, Path(folder) / "wheels")
        by_name = {pinned(path)[0]: sha256(path.read_bytes()) for path in (Path(folder) / "wheels").iterdir()}
    compiled = [" ".join(line.split()) for line in text.splitlines() if line.split("==")[0] in COMPILED]
    return sorted([f"{line.split()[0]} --hash=sha256:{by_name[line.split('==')[0]]}" for line in wheels] + compiled)


def _uv_platform(target: Target) -> str:
    return f"{target.architecture}-manylinux_{target.glibc[0]}_{min(target.glibc[1], 40)}"


if __name__ == "__main__":
    sys.exit(main())
