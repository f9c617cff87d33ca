"""What the four trained networks have in common: windows of frames in, named pictures out, and losses by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from edge_vad.converters.memory_module import MemoryModule
from torch import Tensor, nn

from edge_vad.networks import Target


class System(nn.Module, ABC):
    """One of the trained networks. A new one is one new file beside this one, named in `edge_vad.converters.systems`.

    Required
    --------
    forward(frames)        frames (b, n_frames, 3, h, w) in -1..1, oldest first -> name -> (b, k, 3, h, w).
    losses(frames, found)  name -> weighted scalar; their sum is what is trained.
    targets                what every output should have been, by name (`edge_vad.networks.Target`).
    n_frames               length of a window.

    Optional
    --------
    multiple               sides of the pictures must be multiples of it.
    odds                   outputs that say how likely a place is not normal, (b, 1, rows, columns) each, as odds.
    change_of              the output whose frames are also scored by how much they change.
    before                 options of networks that were trained before these options were there.
    helpers                outputs that training needs alone; a device does not compute them.
    step_done()            after every optimiser step: memories that no gradient moves.
    epoch_done()           after every epoch: what the next one depends on.
    transient()            name -> tensor: what an epoch gathers beside parameters and buffers, for a checkpoint within it.
    restore(kept)          takes back what `transient` gave.
    memories               name -> memory, where a bank may search them on the device: the network is then exported in two
                           halves, `encode` and `decode`.
    encode(frames)         name -> (b, c, h, w): the queries of every memory by its name, and what else decoding needs.
    decode(found)          the same, with what was read of every memory in the place of its queries -> what `forward` gives.

    Whatever is random is drawn from torch's own generator, which is seeded before every step: training can then be resumed.
    """

    targets: Mapping[str, Target]
    n_frames: int
    multiple: ClassVar[int] = 16
    odds: ClassVar[tuple[str, ...]] = ()
    change_of: ClassVar[str | None] = None
    before: ClassVar[Mapping[str, Any]] = {}
    helpers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, frames: Tensor) -> dict[str, Tensor]: ...

    @abstractmethod
    def losses(self, frames: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted parts of the loss of the outputs ``found`` of ``frames``."""

    @property
    def memories(self) -> Mapping[str, MemoryModule]:
        """The memories by name; none where the network is exported as a whole only."""
        return {}

    def encode(self, frames: Tensor) -> dict[str, Tensor]:
        """The part of `forward` before the memories."""
        raise NotImplementedError

    def decode(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The part of `forward` behind the memories."""
        raise NotImplementedError

    def step_done(self) -> None:
        """Called after every optimiser step."""

    def epoch_done(self) -> None:
        """Called after every epoch."""

    def transient(self) -> dict[str, Tensor]:
        """What the running epoch has gathered outside of parameters and buffers."""
        return {}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Take back what `transient` gave."""

    def wanted(self, name: str, frames: Tensor) -> Tensor:
        """What the output ``name`` should be: (b, k, 3, h, w)."""
        wanted: Any = self.targets[name].of(frames)
        return wanted
