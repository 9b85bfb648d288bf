"""Media files with the properties that people's files have, for the tests of what players show."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numbered_clips import numbered
from PIL import Image, ImageCms

COVER = 200  # the number that a cover shows
FORMATS = {"vob": "vob", "m2v": "mpeg2video", "mpg": "mpeg", "m2ts": "mpegts", "mjpeg": "mjpeg"}
PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "gif": "rgb8"}
OPTIONS = {
    # B-frames, where they are asked for, whatever the images are.
    "libx264": {"qp": "1", "b_strategy": "0", "sc_threshold": "0", "bf": "0"},
    "libx265": {"x265-params": "bframes=2:b-adapt=0:scenecut=0:qp=1:log-level=none"},
    "mpeg1video": {"qmin": "1", "qmax": "1"},
    "mpeg2video": {"qmin": "1", "qmax": "1"},
    "mpeg4": {"qmin": "1", "qmax": "1"},
}


def encode(
    path: Path,
    codec: str | None = "libx264",
    frames: int | Sequence[np.ndarray | av.VideoFrame] = 12,
    rate: int = 25,
    pix_fmt: str | None = None,
    options: dict[str, str] | None = None,
    sound: bool = False,
    cover: bool = False,
    second: int = 0,
    **context: object,
) -> Path:
    """Encodes frames, or so many numbered ones, in a container as FFmpeg's muxer writes it.

    Args:
        codec: None for no video.
        sound: the first stream is half a second of sound.
        cover: there is a cover image before the video.
        second: frames of a second, smaller video.
        context: attributes of the codec's context.
    """
    images = [numbered(k) for k in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w", format=FORMATS.get(path.suffix[1:])) as out:
        coding = "pcm_s16le" if path.suffix == ".avi" else "aac"
        audio = out.add_stream(coding, rate=8000) if sound else None
        thumbnail = out.add_stream("mjpeg", rate=1) if cover else None
        stream = out.add_stream(codec, rate=rate) if codec else None
        other = out.add_stream("mpeg4", rate=rate) if second else None
        if other:
            _configure(other, numbered(0, 24, 32), "yuv420p")
        if thumbnail:
            thumbnail.disposition = av.stream.Disposition.attached_pic
            _configure(thumbnail, numbered(COVER), "yuvj420p")
        if stream:
            _configure(stream, images[0], pix_fmt or PIXELS.get(codec, "yuv420p"))
            stream.options = OPTIONS.get(codec, {}) | (options or {})
            for name, value in context.items():
                setattr(stream.codec_context, name, value)
        if thumbnail:
            _write(out, thumbnail, [numbered(COVER)], 1)
        if stream:
            _write(out, stream, images, rate)
        if audio:
            _write_sound(out, audio)
        if other:
            _write(out, other, [numbered(0, 24, 32)] * second, rate)
    return path


def _configure(stream, image, pix_fmt: str) -> None:
    if isinstance(image, np.ndarray):
        stream.height, stream.width = image.shape[:2]
    else:
        stream.height, stream.width = image.height, image.width
    stream.pix_fmt = pix_fmt


def _write(out, stream, images, rate: int) -> None:
    for number, image in enumerate(images):
        frame = image
        if isinstance(image, np.ndarray):
            form = "rgba" if image.shape[-1] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(image, format=form).reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = number, Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def _write_sound(out, stream) -> None:
    for number in range(4):
        form = stream.codec_context.format.name
        kind = np.float32 if form == "fltp" else np.int16
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), kind), form, "mono")
        tone.sample_rate, tone.pts = 8000, 1024 * number
        out.mux(stream.encode(tone))
    out.mux(stream.encode())


def with_subtitles(source: Path, path: Path, seconds: int) -> Path:
    """Copies a video and adds a subtitle that ends after so many seconds."""
    text = f"1\n00:00:00,100 --> 00:00:{seconds:02d},000\nhello\n"
    with (
        av.open(str(source)) as video,
        av.open(io.BytesIO(text.encode()), format="srt") as subtitles,
        av.open(str(path), "w") as out,
    ):
        old = (video.streams.video[0], subtitles.streams.subtitles[0])
        new = [out.add_stream_from_template(stream) for stream in old]
        for container, stream, copy in zip((video, subtitles), old, new, strict=True):
            for packet in container.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
    return path


def display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Makes players show the pixel (x, y) of an mp4 or mov at (a x + c y, b x + d y)."""
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + len(matrix)] = matrix
    path.write_bytes(content)
    return path


def woven(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames of two fields each: even rows of the first, odd rows of the second images."""
    frames = [image.copy() for image in first]
    for frame, image in zip(frames, second, strict=True):
        frame[1::2] = image[1::2]
    return frames


def planes(values: Sequence[float], pix_fmt: str, height: int = 48, width: int = 64):
    """A frame of one colour: a value for each plane, in the levels of the format."""
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, value in zip(frame.planes, values, strict=False):
        dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
        count = plane.buffer_size // np.dtype(dtype).itemsize
        plane.update(np.full(count, round(value), dtype).tobytes())
    return frame


def icc_profile(space: str, colorants: np.ndarray, gamma: float) -> bytes:
    """A minimal ICC profile of a display: XYZ (D50) of red, green, blue in columns, and a gamma.

    `space` is RGB; or GRAY, which has a gamma only.
    """

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        for name, column in zip("rgb", colorants.T, strict=True):
            tags[f"{name}XYZ".encode()] = xyz(column)
            tags[f"{name}TRC".encode()] = curve
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    header = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(data), bytes(4), 0x02400000, b"mntr",
        space.ljust(4).encode(), b"XYZ ", bytes(12), b"acsp",
    )  # fmt: skip
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)  # the white point D50
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


# XYZ (D50) of the colorants of Display P3, as in the profile that phones embed.
DISPLAY_P3 = np.array(
    [[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]]
)


def srgb_profile() -> bytes:
    """The profile of sRGB that most software embeds."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def animation(path: Path, images: Sequence[np.ndarray], milliseconds: int, **options) -> Path:
    """An animated image in the format of the suffix."""
    first, *others = (Image.fromarray(image) for image in images)
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0, **options)
    return path
