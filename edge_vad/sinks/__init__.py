"""Sinks: where events go, one file each."""

from edge_vad.sinks.base import Sink

__all__ = ["Sink"]
