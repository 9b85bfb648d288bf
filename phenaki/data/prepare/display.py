"""Decoded frames as a player displays them: progressive, 8-bit SDR, upright, over white."""

import collections
import contextlib
import threading
from collections.abc import Iterator

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from jaxtyping import UInt8, UInt16
from PIL import Image

from phenaki.data.prepare.clock import Stamps
from phenaki.io import tone_mapping
from phenaki.io.images import check_size
from phenaki.io.pixels import over_white

# Bit exact on every machine; and 10-bit limited-range white is converted to 255 instead of 253.
_CONVERSION = int(
    av.video.reformatter.Interpolation.BICUBIC
    | av.video.reformatter.Interpolation.ACCURATE_RND
    | av.video.reformatter.Interpolation.FULL_CHR_H_INT
    | av.video.reformatter.Interpolation.BITEXACT
)
# Keeps its tables for the next frame of the same form; `frame.reformat` would make them anew.
_OF_THREAD = threading.local()
_BT709, _UNSPECIFIED, _BT2020 = 1, 2, 9  # H.273 matrix coefficients


def rgb(source: object, frame: av.VideoFrame, aspect: float) -> tuple[Image.Image, float]:
    """Converts a frame with its own matrix, range, transfer, primaries, alpha and orientation.

    Args:
        aspect: width / height of a stored pixel.

    Returns the image and the aspect of its pixels, which a quarter turn inverts.
    """
    check_size(source, frame.width, frame.height)
    alpha = any(component.is_alpha for component in frame.format.components)
    if tone_mapping.is_needed(frame.color_trc, frame.color_primaries):
        image = _sdr(frame, alpha)
    else:
        image = _converted(frame, "rgba" if alpha else "rgb24", _matrix(frame, _BT709))
    if alpha:
        image = np.asarray(over_white(Image.fromarray(image)))
    image, turned = _upright(image, frame)
    return Image.fromarray(np.ascontiguousarray(image)), 1 / aspect if turned else aspect


def _converted(frame: av.VideoFrame, name: str, matrix: int | None) -> np.ndarray:
    if not hasattr(_OF_THREAD, "reformatter"):
        _OF_THREAD.reformatter = av.video.reformatter.VideoReformatter()
    return _OF_THREAD.reformatter.reformat(
        frame, format=name, src_colorspace=matrix, interpolation=_CONVERSION
    ).to_ndarray()


def _matrix(frame: av.VideoFrame, of_high_definition: int) -> int | None:
    """The matrix that players assume for untagged high definition; None for that of the frame."""
    untagged = frame.colorspace == _UNSPECIFIED and frame.height >= 720
    return of_high_definition if untagged else None


def _sdr(frame: av.VideoFrame, alpha: bool) -> UInt8[np.ndarray, "h w c"]:
    matrix = _BT2020 if frame.colorspace == _UNSPECIFIED else None
    deep: UInt16[np.ndarray, "h w c"] = _converted(
        frame, "rgba64le" if alpha else "rgb48le", matrix
    )
    image = tone_mapping.to_sdr(deep[..., :3], frame.color_trc, frame.color_primaries)
    if not alpha:
        return image
    return np.dstack([image, (deep[..., 3] >> 8).astype(np.uint8)])


def _upright(image: np.ndarray, frame: av.VideoFrame) -> tuple[np.ndarray, bool]:
    """Applies the display matrix, to the nearest quarter turn; returns whether it turned."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return image, False
    # (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1], turned


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    # `frame.side_data` would keep every frame in memory until the cyclic garbage collector runs.
    found = SideDataContainer.__new__(SideDataContainer)
    # PyAV lists data up to and with the first of a type that it does not know, such as EXIF or the
    # view of a stereo video; FFmpeg attaches the display matrix before those.
    with contextlib.suppress(ValueError):
        SideDataContainer.__init__(found, frame)  # type: ignore[call-arg]
        return bytes(found[Type.DISPLAYMATRIX]) if Type.DISPLAYMATRIX in found else None
    known = (found[index] for index in range(len(found) - 1))
    return next((bytes(data) for data in known if data.type is Type.DISPLAYMATRIX), None)


def deinterlaced(
    frames: Iterator[tuple[Stamps, av.VideoFrame]],
) -> Iterator[tuple[Stamps, av.VideoFrame]]:
    """Makes interlaced frames progressive with FFmpeg's bwdif; leaves the others as they are."""
    graph, form = None, None
    times: collections.deque[Stamps] = collections.deque()
    for time, frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield time, frame
            continue
        its = (frame.width, frame.height, frame.format.name)
        if graph is not None and form != its:
            yield from _pulled(graph, times, end=True)
            graph = None
        graph, form = graph or _graph(frame), its
        times.append(time)
        graph.vpush(frame)
        yield from _pulled(graph, times)
    if graph is not None:
        yield from _pulled(graph, times, end=True)


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        f"width={frame.width}:height={frame.height}:pix_fmt={frame.format.name}:time_base=1/1:"
        f"colorspace={frame.colorspace}:range={frame.color_range}",
    )
    # The filter changes nothing in frames that are not flagged as interlaced.
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def _pulled(
    graph: av.filter.Graph, times: collections.deque[Stamps], end: bool = False
) -> Iterator[tuple[Stamps, av.VideoFrame]]:
    """The frames that are ready: one for each that went in, some frames later."""
    if end:
        graph.vpush(None)
    with contextlib.suppress(BlockingIOError, EOFError):
        while True:
            frame = graph.vpull()
            yield times.popleft(), frame
