"""What the unit is given: normal footage of its own camera, bundles built from it, and the overlay that installs them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import tiny
from disk import Disk
from image import Image
from machine import Machine

WIDTH, HEIGHT, FPS, N_FRAMES = 320, 180, 5, 150
# Emulation is twenty times slower than a board: what has a limit in seconds gets a longer one.
CONFIG = f"""name: vm
profile: desktop_cpu
set: ["store.self_test_s=600", "store.confirm_s=10"]
cameras:
  gate: {{source: /dev/video0, store: /var/lib/edge-vad/gate, fps: {FPS}}}
data: /var/lib/edge-vad/vm
media: {{clips: false}}
sinks: []
"""


def normal_footage(image: Image, folder: Path) -> Path:
    """Pictures of the camera's usual test pattern, as the machine's own camera gives them; kept beside the image."""
    raw = image.folder / "normal.yuyv"
    if not raw.exists():
        _record(image, folder, raw)
    clip = folder / "normal/01"
    clip.mkdir(parents=True)
    for index, frame in enumerate(np.fromfile(raw, np.uint8).reshape(-1, HEIGHT, WIDTH, 2)[:N_FRAMES]):
        cv2.imwrite(str(clip / f"{index:03d}.png"), cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_YUYV))
    return clip.parent


def bundle(normal: Path, out: Path, serial: int) -> Path:
    """A bundle of the normal footage with the tiny encoder.

    Speeds are left out: in a test pattern without noise several shifts correlate equally well, and which one wins is a
    matter of the last digit, which differs from one processor to another.
    """
    encoder, settings = out.with_suffix(".onnx"), out.with_suffix(".yaml")
    encoder.write_bytes(tiny.encoder_model())
    settings.write_text("weights: {spatial: 1.0}\n", encoding="utf-8")
    more = ["--fps", str(FPS), "--serial", str(serial), "--config", str(settings)]
    edge_vad(*tiny.build_arguments(normal, out, encoder, *more))
    return out


def overlay(folder: Path, site: Path) -> Path:
    """The overlay of this tree for the machine's Debian."""
    config, out = folder / "device.yaml", folder / "overlay.tar"
    config.write_text(CONFIG, encoding="utf-8")
    # hnswlib is compiled for the target; a memory of this size is searched exactly, so the unit does without.
    wanted = ["--config", str(config), "--bundle", str(site), "--without", "hnswlib", "--out", str(out)]
    edge_vad("provision", "--target", "debian_trixie", *wanted)
    return out


def as_disk(path: Path) -> Path:
    """A file in a tar, whose size is a whole number of sectors."""
    packed = path.with_suffix(".tar")
    with tarfile.open(packed, "w") as archive:
        archive.add(path, path.name)
    return packed


def edge_vad(*arguments: str) -> str:
    """The command on the host; it has to work."""
    command = ["nice", "-n", "19", str(Path(sys.executable).with_name("edge-vad")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"edge-vad {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _record(image: Image, folder: Path, raw: Path) -> None:
    n_bytes = 2 * WIDTH * HEIGHT * N_FRAMES
    received = folder / "footage.raw"
    received.write_bytes(b"")
    with received.open("r+b") as file:
        file.truncate(n_bytes)
    machine = Machine(image, Disk(folder / "footage_disk.raw", image.disk), folder, [received])
    try:
        asked = f"--set-fmt-video=width={WIDTH},height={HEIGHT},pixelformat=YUYV --set-parm={FPS}"
        stream = f"--stream-mmap --stream-count={N_FRAMES} --stream-to=/tmp/normal"
        machine.must(f"v4l2-ctl --device /dev/video0 {asked} {stream} && dd if=/tmp/normal of=/dev/vdb bs=64K conv=fsync")
        machine.shut_down()
    finally:
        machine.close()
    received.rename(raw)
