"""Methods: what turns a frame into raw anomaly components, one file each."""

from edge_vad.methods.base import Method

__all__ = ["Method"]
