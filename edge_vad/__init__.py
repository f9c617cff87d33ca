"""Video anomaly detection on small devices: normal footage in, one bundle out, alarms on a stream.

>>> from edge_vad import Detector, open_camera        # doctest: +SKIP
>>> detector = Detector.open("site.evb")              # doctest: +SKIP
>>> for frame in open_camera("clip.mp4").frames():    # doctest: +SKIP
...     result = detector.process(frame)

Names are imported when they are first used: `import edge_vad` costs nothing, not even NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_vad.bundle import Bundle, read_bundle
    from edge_vad.cameras import open_camera
    from edge_vad.detector import Detector
    from edge_vad.errors import EdgeVadError
    from edge_vad.types import Event, Frame, Region, Result

__version__ = "0.1.0"
__all__ = ["Bundle", "Detector", "EdgeVadError", "Event", "Frame", "Region", "Result", "open_camera", "read_bundle"]

_MODULES = {
    "Bundle": "bundle",
    "read_bundle": "bundle",
    "open_camera": "cameras",
    "Detector": "detector",
    "EdgeVadError": "errors",
    "Event": "types",
    "Frame": "types",
    "Region": "types",
    "Result": "types",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'edge_vad' has no attribute {name!r}")
    return getattr(import_module(f"edge_vad.{_MODULES[name]}"), name)
