"""The training of a network on normal footage: `edge-vad train`.

The same footage, settings, machine and number of threads give the same weights, also where the training was interrupted:
torch's generator is seeded from (seed, step) before every step, the order of an epoch from (seed, epoch), and a checkpoint
holds everything else.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edge_vad.converters.augmentation import augmented
from edge_vad.converters.checkpoint import (
    NETWORK,
    STATE,
    State,
    Trained,
    assign,
    load_state,
    save_network,
    save_state,
    with_options,
)
from edge_vad.converters.run_folder import LOSSES, RECONSTRUCTIONS, run_folder
from edge_vad.converters.system import System
from edge_vad.converters.systems import complete_options, open_system
from edge_vad.converters.train_settings import TrainSettings
from edge_vad.converters.training_footage import open_footage
from edge_vad.converters.training_pictures import draw_losses, draw_reconstructions
from torch import Tensor

from edge_vad.errors import BackendError, NetworkError, OutputError
from edge_vad.files import write_atomically
from edge_vad.footage import Clip
from edge_vad.progress import Meter, duration
from edge_vad.strict import to_plain
from edge_vad.types import UInt8

log = logging.getLogger(__name__)

CHECKPOINT_S = 60.0
WEIGHTS, ORDER, STEP = range(3)  # what a seed is for
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by a parameter's dimensions


def train(
    settings: TrainSettings,
    clips: Sequence[Clip],
    folder: Path,
    state: State | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Training:
    """Train in ``folder`` until all epochs are done or ``stop`` says so, between two steps.

    state: of a run that goes on (`resumable`). Raises SourceError for the footage, BackendError for the device,
    NetworkError when the training diverges, OutputError when something cannot be written; the last checkpoint stays.
    """
    with run_folder(folder), _threads(settings.threads), torch.random.fork_rng(devices=[]):
        if state is None and (folder / STATE).exists():
            raise OutputError(f"{folder}: holds a training already; go on with it (--resume), or name another --out")
        training = Training(settings, clips, folder)
        if state is not None:
            training.restore(state)
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            training.run(stop)
    return training


def resumable(folder: Path) -> tuple[TrainSettings, State]:
    """What a run goes on from. Raises NetworkError when there is nothing, or it is damaged."""
    if not (folder / STATE).exists():
        raise NetworkError(f"{folder}: there is no training to go on with; leave --resume out to start one")
    state = load_state(folder / STATE)
    began = {"augment": False, **state.settings}  # runs of before know nothing of it
    return with_options(TrainSettings, began, str(folder / STATE)), state


class Training:
    """A network, its optimiser and how far they are. step: optimiser steps that are done, of ``n_steps``."""

    def __init__(self, settings: TrainSettings, clips: Sequence[Clip], folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.device, self.precision = torch.device(settings.device), precision_of(settings)
        torch.manual_seed(_seed(settings.seed, WEIGHTS))
        self.system = open_system(settings.method, settings.all_options).to(self.device)
        _channels_last(self.system)
        self.footage = open_footage(clips, folder, settings.size, self.system.n_frames, settings.stride, settings.fps)
        self.batch = min(settings.batch, len(self.footage.starts))
        self.n_per_epoch = len(self.footage.starts) // self.batch  # windows that fill no batch wait for another epoch
        self.n_steps = settings.epochs * self.n_per_epoch
        self.optimiser = torch.optim.Adam(self.system.parameters(), settings.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self._order: tuple[int, Any] = (-1, None)

    @property
    def epoch(self) -> int:
        """Whole epochs that are done."""
        return self.step // self.n_per_epoch

    @property
    def is_done(self) -> bool:
        """Whether all epochs are."""
        return self.step == self.n_steps

    def run(self, stop: Callable[[], bool]) -> None:
        """Train from `step` on; leaves a checkpoint, also when it is stopped."""
        self.system.train()
        log.info("%s: %d windows, %d steps in %d epochs, %s on %s", self.settings.method, len(self.footage.starts),
                 self.n_steps, self.settings.epochs, self.precision, self.device)  # fmt: skip
        started, before, saved_s = time.monotonic(), self.seconds, time.monotonic()
        with Meter("train", self.n_steps, self.step) as meter:
            while not self.is_done:
                self._train_step()
                self.seconds = before + time.monotonic() - started
                meter.show(self.step)
                stopped = stop()
                if self.step % self.n_per_epoch == 0:
                    self._finish_epoch()
                elif stopped or time.monotonic() - saved_s >= CHECKPOINT_S:
                    self._save_state()
                else:
                    continue
                saved_s = time.monotonic()
                if stopped:
                    return

    def _train_step(self) -> None:
        torch.manual_seed(_seed(self.settings.seed, STEP, self.step))
        frames = as_frames(self.footage.windows(self._chosen()), self.device)
        if self.settings.augment:
            frames = augmented(frames)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.lr * (1 + math.cos(math.pi * self.step / self.n_steps)) / 2
        self.optimiser.zero_grad()
        with self._autocast():
            found = self.system(frames)
        parts = self.system.losses(frames, {name: value.float() for name, value in found.items()})
        total = torch.stack(list(parts.values())).sum()
        self._remember(parts)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.system.step_done()
        self.step += 1

    def _chosen(self) -> Any:
        """Starts of the windows of this step's batch."""
        if self._order[0] != self.epoch:
            generator = np.random.default_rng(_seed(self.settings.seed, ORDER, self.epoch))
            self._order = self.epoch, generator.permutation(self.footage.starts)
        first = self.step % self.n_per_epoch * self.batch
        return self._order[1][first : first + self.batch]

    def _autocast(self) -> torch.autocast:
        kind = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, kind, enabled=self.precision != "fp32")

    def _remember(self, parts: Mapping[str, Tensor]) -> None:
        """Keep the parts of the loss; NetworkError before a step that would spoil the weights."""
        values = torch.stack([part.detach() for part in parts.values()]).tolist()
        row = dict(zip(parts, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise self._diverged(f"the loss ({', '.join(f'{name} {value:g}' for name, value in row.items())})")
        self.history.append(row)

    def _diverged(self, what: str) -> NetworkError:
        return NetworkError(
            f"{self.folder}: {what} is not finite at step {self.step} of {self.n_steps}; start another run with a "
            f"lower --lr than {self.settings.lr:g}; the last checkpoint is as it was"
        )

    def _finish_epoch(self) -> None:
        self.system.epoch_done()
        self._save_state()
        self.publish()
        rows = self.history[-self.n_per_epoch :]
        told = ", ".join(f"{name} {np.mean([row[name] for row in rows if name in row]):.4g}" for name in rows[-1])
        left = duration(self.seconds / self.step * (self.n_steps - self.step))
        log.info("epoch %d of %d: %s; %s, %s left", self.epoch, self.settings.epochs, told, duration(self.seconds), left)

    def publish(self) -> None:
        """Write the network and the pictures of the epochs that are done."""
        save_network(self.folder / NETWORK, self.system, self.trained())
        drawn = draw_losses(self.curves(), self.n_per_epoch)
        write_atomically(self.folder / LOSSES, drawn.encode())
        self.system.eval()
        shown = draw_reconstructions(self.system, self.footage, lambda windows: as_frames(windows, self.device))
        self.system.train()
        write_atomically(self.folder / RECONSTRUCTIONS, shown)

    def curves(self) -> dict[str, Any]:
        """Every part of the loss (steps,) float64; NaN at steps that did not have it."""
        names = dict.fromkeys(name for row in self.history for name in row)
        return {name: np.array([row.get(name, np.nan) for row in self.history]) for name in names}

    def trained(self) -> Trained:
        """What the network file says of itself."""
        settings, footage = self.settings, self.footage
        return Trained(
            method=settings.method,
            options=complete_options(settings.method, settings.all_options),
            size=settings.size,
            image_size=footage.image_size,
            fps=footage.fps,
            stride=footage.stride,
            held_out=footage.held_out,
            epochs=self.epoch,
            seed=settings.seed,
            seconds=round(self.seconds, 3),
            n_windows=len(footage.starts),
            precision=self.precision,
        )

    def _save_state(self) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in self.system.state_dict().values()):
            raise self._diverged("a weight")
        moments = {
            f"{number}/{name}": tensor
            for number, kept in self.optimiser.state_dict()["state"].items()
            for name, tensor in kept.items()
        }
        curves = self.curves()
        state = State(
            settings=to_plain(self.settings),
            content=self.footage.content,
            step=self.step,
            seconds=self.seconds,
            parts=tuple(curves),
            scaler=self.scaler.state_dict(),
            history=torch.from_numpy(np.stack(list(curves.values()), axis=1)),
            model=self.system.state_dict(),
            transient=self.system.transient(),
            moments=moments,
        )
        save_state(self.folder / STATE, state)

    def restore(self, state: State) -> None:
        """Go on where ``state`` was saved. Raises NetworkError when it does not fit the footage or the settings."""
        where = str(self.folder / STATE)
        if state.content != self.footage.content:
            raise NetworkError(f"{where}: --normal is not the footage that the run was started with; name that one")
        if state.step > self.n_steps:
            n_done = -(-state.step // self.n_per_epoch)
            raise NetworkError(f"{where}: {n_done} epochs are begun; --epochs {self.settings.epochs} is behind that")
        assign(self.system, state.model, where)
        self.system.restore({name: tensor.to(self.device) for name, tensor in state.transient.items()})
        self._restore_moments(state.moments, where)
        if self.scaler.is_enabled() and state.scaler:
            self.scaler.load_state_dict(state.scaler)
        self.step, self.seconds = state.step, state.seconds
        self.history = [
            {name: value for name, value in zip(state.parts, row, strict=True) if value == value}  # not NaN
            for row in state.history.tolist()
        ]
        if self.step and self.step % self.n_per_epoch == 0:
            self.publish()  # it was killed between the state and the network, perhaps

    def _restore_moments(self, moments: Mapping[str, Tensor], where: str) -> None:
        """Adam's moments in the layout of their parameters, or sums would be rounded otherwise."""
        parameters = list(self.system.parameters())
        states: dict[int, dict[str, Tensor]] = {}
        try:
            for name, tensor in moments.items():
                number, _, moment = name.partition("/")
                like = parameters[int(number)]
                kept = tensor if moment == "step" else torch.empty_like(like).copy_(tensor)
                states.setdefault(int(number), {})[moment] = kept
        except (ValueError, IndexError, RuntimeError) as error:
            raise NetworkError(f"{where}: the moments of the optimiser do not fit the network: {error}") from error
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": states, "param_groups": groups})


def as_frames(windows: UInt8, device: torch.device) -> Tensor:
    """Windows (b, n, h, w, 3) uint8 -> what a network takes, (b, n, 3, h, w) float32 in -1..1."""
    pixels = torch.from_numpy(windows).to(device).permute(0, 1, 4, 2, 3)
    return pixels.to(torch.float32).mul_(1 / 127.5).sub_(1)


def precision_of(settings: TrainSettings) -> str:
    """fp32, bf16 or fp16: what the settings mean on this device. Raises BackendError when the device is not there."""
    device = torch.device(settings.device)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise BackendError(f"--device {settings.device}: torch {torch.__version__} finds no such GPU here; say --device cpu")
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


@contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _channels_last(system: System) -> None:
    """Channels behind each other in memory: what convolutions of pictures and of clips are fastest in."""
    for parameter in system.parameters():
        if parameter.dim() in CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[parameter.dim()])


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
