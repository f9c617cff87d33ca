"""edge-vad train: normal footage in, the weights of a network out."""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from edge_vad.converters.build_command import clips_of
from edge_vad.converters.systems import SYSTEMS
from edge_vad.converters.train_settings import Arithmetic, TrainSettings

from edge_vad.commands.options import Parser
from edge_vad.errors import ProfileError
from edge_vad.plugins import require

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    require("torch", "torch", "edge-vad train")
    from edge_vad.converters.checkpoint import NETWORK, with_options
    from edge_vad.converters.training import resumable, train

    given = {name: value for name, value in vars(options).items() if value is not None}
    normal, out, resume = given.pop("normal"), given.pop("out"), given.pop("resume")
    if "options" in given:
        given["options"] = dict(given["options"])
    if resume:
        before, state = resumable(out)
        settings = before.changed(**given)
    else:
        settings, state = with_options(TrainSettings, given, "flags", ProfileError), None
    with _Stop() as stop:
        training = train(settings, clips_of(normal), out, state, stop)
    run, footage = shlex.quote(str(out)), " ".join(map(shlex.quote, normal))
    if not training.is_done:
        log.info("stopped at step %d of %d, which is kept; to go on: edge-vad train --resume --out %s --normal %s",
                 training.step, training.n_steps, run, footage)  # fmt: skip
        return 128 + stop.number
    size = (out / NETWORK).stat().st_size / 1e6
    sys.stdout.write(
        f"{out / NETWORK}: {size:.2f} MB in {training.seconds:.0f} s; next: edge-vad build --method {settings.method} "
        f"--weights {run} --normal {footage} --out site.evb\n"
    )
    return 0


def _parser() -> Parser:
    """Flags that have the name of their setting; None where one is not given, so that --resume can tell."""
    parser = Parser("train", "edge-vad train --method maam --normal footage/ --out run/ [options]")
    parser.add_argument("--method", metavar="NAME", help=f"what to train: {', '.join(SYSTEMS)}")
    parser.add_argument(
        "--normal", nargs="+", required=True, metavar="PATH", help="normal footage, as edge-vad build --normal takes it"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, with its settings")
    parser.add_argument("--size", type=_size, metavar="HxW", help="height and width of the pictures (default 128x192)")
    parser.add_argument("--width", type=float, help="of the network: 1 is the published one (default 0.5)")
    parser.add_argument("--epochs", type=int, metavar="N", help="times that the footage is gone through (default 30)")
    parser.add_argument("--batch", type=int, metavar="N", help="windows per step (default 8)")
    parser.add_argument("--lr", type=float, help="learning rate at the start; falls to 0 along a cosine (default 0.001)")
    parser.add_argument("--seed", type=int, metavar="N", help="of weights, order and dropout (default 0)")
    parser.add_argument("--device", metavar="NAME", help="cpu (default), cuda, cuda:1")
    parser.add_argument(
        "--precision", choices=get_args(Arithmetic), help="of the arithmetic (default auto: bf16 where the device has it)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: one per core)")
    parser.add_argument(
        "--no-augment", dest="augment", action="store_const", const=False, help="do not mirror, shift and light the windows"
    )
    parser.add_argument(
        "--stride", type=int, metavar="N", help="frames from one of a window to the next (default: about three a second)"
    )
    parser.add_argument("--fps", type=float, help="frames per second of the footage (pictures carry none; default 10)")
    parser.add_argument(
        "--set",
        action="append",
        type=_option,
        dest="options",
        metavar="KEY=VALUE",
        help="an option of the method: memory=false",
    )
    return parser


def _size(text: str) -> tuple[int, int]:
    """``128x192``, height first -> (width, height)."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, as 128x192")
    return int(found[2]), int(found[1])


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    try:
        if equals:
            return key, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE, as memory=false")


class _Stop:
    """True once SIGINT or SIGTERM came: the training ends between two steps. A second one ends it at once, as does one
    before the first step, where there is nothing to keep."""

    number = 0
    _is_asked = False

    def __enter__(self) -> _Stop:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        self._is_asked = True
        return self.number != 0

    def _note(self, number: int, _: object) -> None:
        if self.number or not self._is_asked:
            raise KeyboardInterrupt
        self.number = number
