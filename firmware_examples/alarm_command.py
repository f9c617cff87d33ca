"""python firmware_examples/alarm_command.py site.evb clip.mp4 echo ALARM

Runs a command of yours when an event starts, with the score and the time behind it: a relay, a siren, a message.
"""

import subprocess
import sys

from edge_vad import Detector, open_camera


def main(bundle: str, source: str, *command: str) -> int:
    detector = Detector.open(bundle, profile="raspberry_pi_5")
    with open_camera(source) as camera:
        for frame in camera.frames():
            for event in detector.process(frame).events:
                if event.kind == "start":
                    # The child gets arguments, never a shell line; a slow command delays the next frame.
                    subprocess.run([*command, f"{event.peak_score:.2f}", f"{event.start_s:.1f}"], check=False, timeout=10)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
