"""edge-vad encoder: the encoder steps of build, alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from edge_vad.converters.encoders import load_encoder
from edge_vad.converters.quantisation import Calibration, Quantizer, check_methods, quantize

from edge_vad.cameras import open_camera
from edge_vad.commands.options import Parser
from edge_vad.files import check_writable, write_atomically
from edge_vad.footage import find_clips
from edge_vad.sampling import crops
from edge_vad.types import UInt8

PICTURES_PER_CLIP, CROPS_PER_PICTURE, DEFAULT_SIDE = 4, 8, 64


def main(arguments: Sequence[str]) -> int:
    parser = Parser("encoder", "edge-vad encoder export --encoder efficientnet_lite0 --out lite0.onnx")
    parser.add_argument("action", choices=("export", "quantize"))
    parser.add_argument(
        "--encoder", required=True, metavar="NAME|FILE.onnx", help="built in, package.module:factory, or a file"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.onnx")
    parser.add_argument("--taps", metavar="A,B", help="named taps, finest resolution first")
    parser.add_argument("--mean", type=_three, metavar="R,G,B", help="of pixels 0..255")
    parser.add_argument("--std", type=_three, metavar="R,G,B", help="of pixels 0..255")
    parser.add_argument("--multiple", type=int, help="picture sides must be multiples of it")
    parser.add_argument("--fixed-size", type=int, help="the only side that the encoder takes")
    parser.add_argument("--calibration", nargs="+", metavar="PATH", help="quantize: normal footage")
    parser.add_argument("--method", choices=get_args(Calibration), default="minmax", help="how ranges are read off it")
    parser.add_argument("--quantizer", choices=get_args(Quantizer), default="onnxruntime", help="what makes INT8")
    options = parser.parse_args(arguments)
    if options.action == "quantize" and not options.calibration:
        parser.error("quantize needs --calibration PATH, normal footage")
    try:
        check_methods(options.quantizer, options.method)
    except ValueError as error:
        parser.error(str(error))
    check_writable(options.out)
    encoder = load_encoder(options.encoder, **_changes(options))
    told = f"taps {', '.join(encoder.preprocessing.taps)}"
    if options.action == "quantize":
        side = encoder.preprocessing.fixed_size or DEFAULT_SIDE
        pictures = calibration_pictures(options.calibration, side)
        encoder, cosine = quantize(encoder, pictures, options.method, options.quantizer)
        told += f", INT8, cosine of the features to fp32 {cosine:.4f}"
    write_atomically(options.out, encoder.model)
    sys.stdout.write(f"{options.out}: {len(encoder.model):,} bytes, {told}\n")
    return 0


def calibration_pictures(paths: Sequence[str], side: int) -> list[UInt8]:
    """Random square crops (n, side, side, 3) of pictures spread over the footage."""
    generator = np.random.default_rng(0)
    batches = []
    for clip in find_clips(paths):
        with open_camera(clip.path) as camera:
            step = max(1, (camera.n_frames or 100) // PICTURES_PER_CLIP)
            for frame in islice(camera.frames(), 0, None, step):
                height, width = frame.image.shape[:2]
                edge = generator.uniform(side / 2, max(side, height / 2), CROPS_PER_PICTURE)
                x, y = (generator.uniform(0, np.maximum(1, limit - edge)) for limit in (width, height))
                batches.append(
                    crops(frame.image, np.stack([x, y, x + edge, y + edge], axis=1).astype(np.float32), side, side)
                )
    return batches


def _three(text: str) -> tuple[float, float, float]:
    red, green, blue = (float(part) for part in text.split(","))
    return red, green, blue


def _changes(options: Any) -> dict[str, Any]:
    """What the flags say of the encoder."""
    given = {key: getattr(options, key) for key in ("mean", "std", "multiple", "fixed_size") if getattr(options, key)}
    return given | ({"taps": tuple(options.taps.split(","))} if options.taps else {})
