"""edge-vad learn: let a unit learn its own normal view."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.commands.store import open_store
from edge_vad.errors import ProfileError, SourceError
from edge_vad.feed import open_feed
from edge_vad.files import check_writable
from edge_vad.learning import Learned, Learner
from edge_vad.profile import Profile
from edge_vad.progress import REFRESH_S, show
from edge_vad.self_test import check_in_child
from edge_vad.signing import ask_password, sign_bundle
from edge_vad.store import Store

log = logging.getLogger(__name__)
IDLE_S = 0.02


def main(arguments: Sequence[str]) -> int:
    parser = Parser("learn", "edge-vad learn --minutes 30 --source /dev/video0 --store /var/lib/edge-vad [--activate]")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="how long to watch (default 30); stored footage may end before"
    )
    parser.add_argument(
        "--source", required=True, help="the camera that the unit watches, or footage that was recorded there"
    )
    parser.add_argument("--store", nargs="?", const="", metavar="DIR", help="learn into this store's current bundle")
    parser.add_argument("--bundle", type=Path, metavar="FILE.evb", help="or into this one")
    parser.add_argument("--out", type=Path, metavar="FILE.evb", help="write the derived bundle there")
    parser.add_argument("--activate", action="store_true", help="run it from the next start on, on trial")
    parser.add_argument(
        "--key", type=Path, metavar="NAME.key", help="sign it with this unit's own key, where bundles must be"
    )
    parser.add_argument(
        "--include-events", action="store_true", help="all that is seen is normal, also what raises alarms now"
    )
    parser.add_argument("--fps", type=float, help="frames per second: wanted of a camera, or of pictures")
    add_profile(parser)
    options = parser.parse_args(arguments)
    if (options.store is None) == (options.bundle is None) or (options.bundle and not options.out):
        parser.error("name --store, or --bundle with --out")
    if options.activate and options.store is None:
        parser.error("--activate needs a --store")
    if options.minutes <= 0:
        parser.error("--minutes must be positive")
    profile = profile_of(options)
    store = open_store(profile, options.store) if options.store is not None else None
    _check_can_be_installed(store, options, profile)
    bundle = store.load_current() if store else read_bundle(options.bundle, profile.trust.load())
    learner = Learner(bundle, profile, include_events=options.include_events)
    watch(learner, options.source, options.minutes * 60, options.fps, bundle)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "learned.evb"
        learned = learner.derive(out)
        if options.key:
            sign_bundle(out, options.key, ask_password)
        sys.stdout.write(describe(learned))
        if store:
            bundle_id = store.install(out, lambda path, i: check_in_child(path, i, profile))
            if options.activate:
                store.activate(bundle_id)
            todo = (
                "runs from the next start on, on trial"
                if options.activate
                else f"next: edge-vad store activate {bundle_id[:12]}"
            )
            sys.stdout.write(f"installed {bundle_id[:12]}; {todo}\n")
    return 0


def watch(learner: Learner, source: str, seconds: float, fps: float | None, bundle: Bundle) -> None:
    """Show the learner the camera for that long, or until the footage ends."""
    feed = open_feed(source, fps, bundle.image_size)
    shown = 0.0
    started = time.monotonic()
    try:
        while learner.seconds < seconds and not feed.ended:
            frame, notices = feed.poll()
            for notice in notices:
                log.warning("%s %s: %s", notice.type, notice.kind, notice.data)
                learner.gap()
            if frame is None:
                if feed.live and time.monotonic() - started > 2 * seconds + 60:
                    raise SourceError(
                        f"{source}: it gave {learner.seconds:.0f} s of frames in {2 * seconds + 60:.0f} s; see to it"
                    )
                time.sleep(IDLE_S if feed.live else 0.0)
                continue
            result = learner.see(frame)
            if time.monotonic() - shown > REFRESH_S:
                shown = time.monotonic()
                show(f"learning {learner.seconds:.0f} of {seconds:.0f} s  score {result.score:5.2f}")
    finally:
        show("")
        feed.close()


def describe(learned: Learned) -> str:
    """What was learned, for people."""
    drift = ", ".join(f"{name} {value:+.2f}" for name, value in sorted(learned.drift.items()))
    rows = ", ".join(f"{name} {new} of {total}" for name, (new, total) in sorted(learned.rows.items()))
    stretches = f"{learned.parts} stretches kept, {learned.parts_left_out} with events left out"
    return (
        f"watched    {learned.minutes:.1f} minutes: {stretches}\n"
        f"drift      mean against the footage of before, in its deviations: {drift}\n"
        f"alarms     {learned.alarm_part_before:.1%} of the frames before, {learned.alarm_part_after:.1%} after\n"
        f"new rows   {rows}\n"
    )


def _check_can_be_installed(store: Store | None, options: Namespace, profile: Profile) -> None:
    """Before half an hour of watching, not after it."""
    if store and profile.trust.load().policy == "required" and not options.key:
        raise ProfileError("bundles must be signed here: make this unit a key of its own, trust it, and name it with --key")
    if options.out:
        check_writable(options.out)
