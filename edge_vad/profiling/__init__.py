"""The profiler: what a processed frame costs on this device, stage by stage, and what the device goes through meanwhile.

>>> detector = Detector.open("site.evb")                                    # doctest: +SKIP
>>> found = measure(detector, frames, duration_s=10)                        # doctest: +SKIP
>>> found.summary()["end_to_end"]["wall_ms"]["p95"]                         # doctest: +SKIP
"""

from edge_vad.profiling.measurement import Measurement, measure
from edge_vad.profiling.percentiles import PERCENTILES

__all__ = ["PERCENTILES", "Measurement", "measure"]
