"""Memory over millions of frames, and two live cameras over minutes.

    python benchmarks/soak.py accelerated [--frames 3600000]
    python benchmarks/soak.py paced [--minutes 20] [--fps 15]

accelerated: a loop of 180x120 street at 200 frames per second of its own time, taken as fast as it goes, through the whole
unit: detector with a tiny encoder, events, event log, snapshots and clips. Every thirtieth frame is processed, as the
bundle's period says. Growth is counted from 5 % of the frames on, when every buffer has its size.
paced: two live cameras of the generated street, 320x240, each in its own process, with the default encoder, event log and
media; processor time of all processes, memory, drops, and the time from a frame's exposure to its event in the log.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy is loaded; the command line does the same

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny

from edge_vad.cli import main as edge_vad
from edge_vad.device import CameraSettings, Device
from edge_vad.heap import tune_heap
from edge_vad.profile import load_profile
from edge_vad.telemetry import memory_mb
from edge_vad.unit import Unit

GROWTH_MB = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("accelerated", "paced"))
    parser.add_argument("--frames", type=int, default=3_600_000)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--fps", type=float, default=15.0)
    options = parser.parse_args()
    tune_heap()
    with tempfile.TemporaryDirectory() as folder:
        if options.kind == "accelerated":
            return accelerated(Path(folder), options.frames)
        return paced(Path(folder), options.minutes, options.fps)


def accelerated(folder: Path, n_frames: int) -> int:
    """0 when memory grew by at most GROWTH_MB."""
    for seed in (1, 2):
        tiny.write_clip(folder / "normal" / f"{seed:02d}", 60, seed=seed)
    encoder = folder / "tiny.onnx"
    encoder.write_bytes(tiny.encoder_model())
    bundle = folder / "soak.evb"
    if edge_vad(tiny.build_arguments(folder / "normal", bundle, encoder)):
        return 1
    source = f"benchmarks.loop_camera:frames={n_frames},fps=200,report={max(1, n_frames // 40)}"
    device = Device({"loop": CameraSettings(source, str(bundle))}, data=str(folder / "data"), sinks=())
    unit = Unit(device, load_profile("desktop_cpu"))
    unit.run()
    channel = unit.channels[0]
    memory = channel.feed.camera.memory  # type: ignore[attr-defined]
    start = memory[max(1, len(memory) // 20)]
    print(f"{n_frames} frames, {channel.n_scored} processed, {channel.n_events} events")
    print(f"memory {start:.1f} -> {memory[-1]:.1f} MB")
    grown = max(memory[len(memory) // 20 :]) - start
    print(f"growth {grown:.1f} MB, goal {GROWTH_MB} MB: {'reached' if grown <= GROWTH_MB else 'missed'}")
    return 0 if grown <= GROWTH_MB else 3


def paced(folder: Path, minutes: float, fps: float) -> int:
    """Print what two cameras cost."""
    from edge_vad.cameras.synthetic import write_dataset

    write_dataset(folder / "street", seed=7, n_training=6, n_testing=0, seconds=20.0, size=(320, 240))
    bundle = folder / "street.evb"
    build = ["build", "--normal", str(folder / "street"), "--out", str(bundle)]
    subprocess.run([sys.executable, "-m", "edge_vad", *build], check=True)  # its memory is not the unit's
    cameras = {
        name: CameraSettings(f"synthetic:seed={seed},fps={fps:g},size=320x240", str(bundle))
        for name, seed in (("gate", 11), ("yard", 12))
    }
    unit = Unit(Device(cameras, data=str(folder / "data"), sinks=()), load_profile("desktop_cpu"))
    threading.Thread(target=_watch, args=(unit, minutes), daemon=True).start()
    cpu, wall = _cpu_s(), time.monotonic()
    unit.run()
    wall = time.monotonic() - wall
    own, children = (after - before for after, before in zip(_cpu_s(), cpu, strict=True))
    print(
        f"{wall / 60:.1f} minutes: {own / wall:.1%} of a core for the unit, {children / wall:.1%} for the cameras' processes"
    )
    return 0


def _watch(unit: Unit, minutes: float) -> None:
    """Print the unit's state once a minute, and end it."""
    for minute in range(round(minutes)):
        time.sleep(60)
        for name, state in unit.status()["cameras"].items():
            counted = ", ".join(f"{state[key]} {key}" for key in ("captured", "scored", "dropped", "events"))
            latency = f"frame {state['latency_ms']} ms, event {state['event_latency_ms']} ms"
            print(f"minute {minute + 1:>3}  {name}: {counted}; {latency}; {memory_mb():.1f} MB", flush=True)
    unit.stop("the time is over")


def _cpu_s() -> tuple[float, float]:
    """Processor seconds of this process, and of the children that have ended."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, ended.ru_utime + ended.ru_stime


if __name__ == "__main__":
    sys.exit(main())
