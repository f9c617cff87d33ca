"""Backends: what runs an encoder or a network, one file each."""

from edge_vad.backends.base import Backend

__all__ = ["Backend"]
