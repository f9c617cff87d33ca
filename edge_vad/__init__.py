"""Video anomaly detection on small devices: normal footage in, one bundle out, alarms on a stream.

>>> from edge_vad import Detector, open_camera        # doctest: +SKIP
>>> detector = Detector.open("site.evb")              # doctest: +SKIP
>>> for frame in open_camera("clip.mp4").frames():    # doctest: +SKIP
...     result = detector.process(frame)
"""

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.cameras import open_camera
from edge_vad.detector import Detector
from edge_vad.errors import EdgeVadError
from edge_vad.types import Event, Frame, Region, Result

__version__ = "0.1.0"
__all__ = ["Bundle", "Detector", "EdgeVadError", "Event", "Frame", "Region", "Result", "open_camera", "read_bundle"]
