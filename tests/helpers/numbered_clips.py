"""Small media files that the data tests write themselves: each frame shows its own number."""

import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from phenaki.data.prepare import ingest

SHARED = Path(__file__).parents[3] / "shared" / "data" / "clips"
ROWS, COLUMNS = 2, 4  # blocks of bits
TICKS = 90_000


def numbered(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame whose blocks are the bits of `number`, lowest first: white for 1."""
    bits = np.array([number >> bit & 1 for bit in range(ROWS * COLUMNS)], np.uint8)
    blocks = bits.reshape(ROWS, COLUMNS) * 255
    image = np.kron(blocks, np.ones((height // ROWS, width // COLUMNS), np.uint8))
    return np.repeat(image[..., None], 3, -1)


def read_number(image: np.ndarray) -> int:
    """The number that a frame shows, at any size."""
    height, width = image.shape[:2]
    y = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    x = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    bits = image[y][:, x].mean(-1).reshape(-1) > 128
    return int(bits @ (1 << np.arange(len(bits))))


def regular(count: int, rate: float) -> list[Fraction]:
    """Times of frames at a fixed rate."""
    return [k / Fraction(rate).limit_denominator(1001) for k in range(count)]


def write_video(
    path: Path,
    times: Sequence[Fraction | float],
    frames: Sequence[np.ndarray | av.VideoFrame] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    aspect: Fraction | None = None,
    colour: tuple[int, int] | None = None,
) -> Path:
    """Encodes frames, by default numbered ones, at the given seconds.

    Args:
        colour: H.273 matrix and range that the stream is tagged with.
    """
    frames = [numbered(k) for k in range(len(times))] if frames is None else frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        if isinstance(frames[0], av.VideoFrame):
            stream.width, stream.height = frames[0].width, frames[0].height
        else:
            stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        if codec == "libx264":
            stream.codec_context.options = {"preset": "ultrafast", "qp": "0"}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if colour:
            stream.codec_context.colorspace, stream.codec_context.color_range = colour
        for time, image in zip(times, frames, strict=True):
            frame = image
            if isinstance(image, np.ndarray):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotate(path: Path, clockwise: int) -> None:
    """Sets the display matrix of an mp4: players rotate the frames by so many degrees."""
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + len(matrix)] = matrix
    path.write_bytes(content)


def solid(
    rgb: Sequence[int], matrix: tuple[float, float], full: bool, bits: int, height: int = 48
) -> av.VideoFrame:
    """A yuv420p frame of one colour, by the definition of Y'CbCr with weights (red, blue)."""
    red, green, blue = (value / 255 for value in rgb)
    luma = matrix[0] * red + (1 - sum(matrix)) * green + matrix[1] * blue
    chroma = [(blue - luma) / (2 - 2 * matrix[1]), (red - luma) / (2 - 2 * matrix[0])]
    step, top = 2 ** (bits - 8), 2**bits - 1
    if full:
        values = [luma * top, *(c * top + 128 * step for c in chroma)]
    else:
        values = [(16 + 219 * luma) * step, *((128 + 224 * c) * step for c in chroma)]
    dtype = np.uint8 if bits == 8 else np.uint16
    frame = av.VideoFrame(64, height, "yuv420p" if bits == 8 else "yuv420p10le")
    for plane, value in zip(frame.planes, values, strict=True):
        count = plane.buffer_size // np.dtype(dtype).itemsize
        plane.update(np.full(count, round(value), dtype).tobytes())
    return frame


def decode_or_crash(unit, job):
    """`ingest.decode_unit` with a decoder that crashes on files called crash*."""
    if any(Path(item.key).name.startswith("crash") for item in unit):
        os._exit(11)
    return DECODE_UNIT(unit, job)


DECODE_UNIT = ingest.decode_unit
