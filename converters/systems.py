"""The trained networks by name, each imported when it is named, and what can be set of them."""

from __future__ import annotations

import importlib
import inspect
import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, field, make_dataclass
from typing import TYPE_CHECKING, Any

from edge_vad.errors import PluginError, ProfileError, did_you_mean
from edge_vad.plugins import require
from edge_vad.strict import from_plain

if TYPE_CHECKING:
    from edge_vad.converters.system import System

SYSTEMS = {  # method: module and class
    "maam": "edge_vad.converters.maam:Maam",
    "amco": "edge_vad.converters.amco:Amco",
    "desd": "edge_vad.converters.desd:Desd",
    "stpag": "edge_vad.converters.stpag:Stpag",
}
LIMITS = {"width": (0.02, 4.0), "n_items": (2, 100_000)}
ANY = (0, 1e6)  # of every other number


def system_class(method: str) -> type[System]:
    """The class of a method. Raises PluginError when there is none of that name."""
    if method not in SYSTEMS:
        raise PluginError(f"no trained method {method!r}{did_you_mean(method, SYSTEMS)}")
    require("torch", "torch", f"the trained method {method}")
    module, _, name = SYSTEMS[method].partition(":")
    try:
        found: type[System] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise PluginError(f"the trained method {method!r} cannot be imported: {error}") from error
    return found


def complete_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All keyword arguments of the method's class: ``options`` over its defaults.

    Raises PluginError for an unknown method, ProfileError for an unknown option, a wrong type or a value out of range.
    """
    made = system_class(method).__init__
    hints = typing.get_type_hints(made)
    arguments = [p for p in inspect.signature(made).parameters.values() if p.name != "self"]
    kind = make_dataclass("Options", [(p.name, hints[p.name], field(default=p.default)) for p in arguments])
    where = f"options of {method}"
    complete = asdict(from_plain(kind, options, where, ProfileError))
    for name, value in complete.items():
        low, high = LIMITS.get(name, ANY)
        if not (isinstance(value, bool) or (math.isfinite(value) and low <= value <= high)):
            raise ProfileError(f"{where}: {name} must lie in {low:g}..{high:g}, not {value!r}")
    return complete


def open_system(method: str, options: Mapping[str, Any]) -> System:
    """A network with fresh weights, on the CPU. Raises as `complete_options` does, also where options exclude each other."""
    complete = complete_options(method, options)
    try:
        return system_class(method)(**complete)
    except ValueError as error:
        raise ProfileError(f"options of {method}: {error}") from error
