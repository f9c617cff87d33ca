"""Puts the real picamera2 into a root, and a camera behind it: libcamera's virtual one, which shows pictures of a folder.

On a Raspberry Pi picamera2 is a Debian package, which Debian itself has not: it comes from PyPI, to where apt would put it.
What it needs to run without a Raspberry Pi is in tests/cameras/virtual_pipeline.py; here, importing picamera2 applies it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from roots import Root

PACKAGES = Path("usr/lib/python3/dist-packages")
PIPELINE = Path(__file__).parents[1] / "cameras/virtual_pipeline.py"
PYTHON = "3.13"
# What it imports to show frames; numpy and OpenCV are those of the overlay.
WHEELS = ("picamera2==0.3.38", "av", "jsonschema", "libarchive-c", "piexif", "pillow", "simplejpeg", "tqdm", "videodev2")
PYKMS = """\
class AnyName:
    def __getattr__(self, name):
        return name


PixelFormat = PixelFormats = AnyName()  # of previews
"""
STAND_INS = {
    "pykms.py": PYKMS,
    "pidng/core.py": "PICAM2DNG = None  # writes raw pictures; a source to compile on PyPI\n",
    "pidng/camdefs.py": "Picamera2Camera = None\n",
}
APPLIED = "\nimport virtual_pipeline  # noqa\n\nvirtual_pipeline.install({})\n"
DESCRIPTION = """\
"Virtual0":
  supported_formats: [{{width: {0}, height: {1}, frame_rates: [1, 60]}}]
  frames: {{path: "/opt/frames/"}}
  location: "CameraLocationFront"
  model: "Virtual Video Device"
"""


def give_camera(root: Root, frames: Path, size: tuple[int, int], fps: float) -> None:
    """frames: JPEG pictures of that size (width, height), each shown for four beats; fps: beats in a second."""
    there = root.folder / PACKAGES
    _fetch(there, "aarch64" if root.qemu else "x86_64")
    for name, text in STAND_INS.items():
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).write_text(text)
    shutil.copy(PIPELINE, there)
    with (there / "picamera2/__init__.py").open("a") as file:
        file.write(APPLIED.format(fps))
    shown = root.folder / "opt/frames"
    shown.mkdir(parents=True)
    for number, path in enumerate(sorted(frames.iterdir())):
        shutil.copy(path, shown / f"{number}.jpg")
    described = root.folder / "usr/share/libcamera/pipeline/virtual/virtual.yaml"
    described.parent.mkdir(parents=True)
    described.write_text(DESCRIPTION.format(*size))


def _fetch(folder: Path, architecture: str) -> None:
    tags = [f"manylinux_2_{minor}_{architecture}" for minor in range(41, 16, -1)] + [f"manylinux2014_{architecture}"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    how = [
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={PYTHON}",
    ]
    command = [sys.executable, "-m", "pip", "install", *how, *platforms, "--target", str(folder), *WHEELS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"pip: {done.stderr}"
