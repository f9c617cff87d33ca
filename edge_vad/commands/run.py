"""edge-vad run: watch cameras, deliver events."""

from __future__ import annotations

import logging
import resource
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.device import CameraSettings, Device, load_device
from edge_vad.errors import ProfileError
from edge_vad.profile import Profile, load_profile
from edge_vad.unit import Unit

log = logging.getLogger(__name__)
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    parser = Parser("run", "edge-vad run --config device.yaml, or: edge-vad run --bundle site.evb --source /dev/video0")
    parser.add_argument(
        "--config", type=Path, metavar="FILE.yaml", help="cameras, bundles and sinks of a unit (docs/live.md)"
    )
    parser.add_argument("--bundle", metavar="FILE.evb", help="the bundle of one camera")
    parser.add_argument("--store", nargs="?", const="", metavar="DIR", help="the store's current bundle instead")
    parser.add_argument(
        "--source",
        help="a camera (picamera2:0, /dev/video0, csi://0, rtsp://..., gst:...), a video, a folder, synthetic:...",
    )
    add_profile(parser)
    parser.add_argument("--fps", type=float, help="frames per second: wanted of a camera, or of pictures (default 10)")
    parser.add_argument(
        "--sink", action="append", metavar="NAME:LOCATION", help="where events go; repeatable (default: standard output)"
    )
    parser.add_argument("--data", metavar="DIR", help="keep an event log, snapshots and clips there")
    usual = parser.get_default("profile")
    parser.set_defaults(profile=None)
    options = parser.parse_args(arguments)
    one_camera = [options.source, options.bundle, options.store, options.sink, options.fps, options.data, options.profile]
    options.profile = options.profile or usual
    if options.config and any(value is not None for value in one_camera):
        parser.error("--config describes the whole unit: leave the other flags out")
    if not options.config and (options.source is None or (options.bundle is None) == (options.store is None)):
        parser.error("name --source and either --bundle or --store, or a --config")
    device, profile = _from_config(options) if options.config else _from_flags(options)
    start = time.process_time()
    unit = Unit(device, profile)
    try:
        unit.run()
    finally:
        n_frames = sum(channel.feed.counters.taken for channel in unit.channels)
        n_events = sum(channel.n_events for channel in unit.channels)
        cpu_ms = 1000 * (time.process_time() - start) / max(n_frames, 1)
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        log.info("%d frames, %d events, %.1f CPU ms per frame, %.0f MB", n_frames, n_events, cpu_ms, memory_mb)
    return EXIT_INTERRUPTED if unit.stopped_by == "SIGINT" else 0


def _from_config(options: Namespace) -> tuple[Device, Profile]:
    """A unit's file names its profile; flags change single values of it."""
    device = load_device(options.config)
    return device, load_profile(device.profile, (*device.set, *options.set))


def _from_flags(options: Namespace) -> tuple[Device, Profile]:
    profile = profile_of(options)
    store = None if options.store is None else options.store or profile.store.folder
    try:
        camera = CameraSettings(options.source, options.bundle, store, options.fps)
        sinks = tuple(options.sink or ["jsonl:-"])
        return Device({"camera": camera}, profile=profile.name, data=options.data, sinks=sinks), profile
    except ValueError as error:
        raise ProfileError(f"flags: {error}") from error
