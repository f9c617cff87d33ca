"""`edge_vad.object_detector` on tensors: the picture and the network on the device, the choice of boxes on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge_vad.backends.base import checked_output
from edge_vad.errors import BackendError
from edge_vad.object_detector import PAD, ObjectDetector, scale_of
from edge_vad.perspective import Perspective
from edge_vad.tensors.sampling import resize
from edge_vad.types import Float32


class TensorObjectDetector(ObjectDetector):
    """Class-agnostic boxes of one picture, in two halves with a download between them."""

    def rows(self, image: Tensor) -> Tensor:
        """The network's output for an image (H, W, 3) uint8, its classes reduced to the likeliest.

        (n, 6) float32 for YOLOX and YOLOv5, (5, n) for YOLOv8: a hundredth of what it gives.
        """
        planes = letterbox(image, self._settings.input_size).permute(2, 0, 1)[None]
        planes = planes.flip(1) if self._settings.head == "yolox" else planes / 255
        output = self._backend.run_tensors({self._settings.input_name: planes}).get(self._settings.output_name)
        if output is None or output.ndim != 3 or not output.numel():
            raise BackendError(f"the model gives no float values of 3 dimensions as {self._settings.output_name!r}")
        axis, first = (0, 4) if self._settings.head == "yolov8" else (1, 5)
        values = output[0].float()
        if values.shape[axis] <= first:
            return values  # refused with its shape where it is decoded
        before, classes = values.split([first, values.shape[axis] - first], dim=axis)
        return torch.cat([before, classes.amax(dim=axis, keepdim=True)], dim=axis)

    def boxes(self, rows: Float32, shape: Sequence[int], perspective: Perspective) -> tuple[Float32, Float32]:
        """Boxes and confidences, as `ObjectDetector` gives them, from the rows of an image of that shape."""
        output = checked_output({self._settings.output_name: rows[None]}, self._settings.output_name, 3)[0]
        scale = scale_of(shape, self._settings.input_size)
        return self.of_usual_size(*self.chosen(output, scale), perspective)


def letterbox(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The image scaled to fit (width, height), padded at the right and below: (height, width, 3) float32."""
    scale = scale_of(image.shape, size)
    width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    picture = torch.full((size[1], size[0], 3), float(PAD), device=image.device)
    picture[:height, :width] = resize(image, width, height)
    return picture
