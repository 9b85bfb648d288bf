"""Hostile inputs for `prepare_data.py`: corrupt, unusual and malicious media, tars and tables."""

import io
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import av
import layouts
import numpy as np
from numbered_clips import numbered, regular, rotate, write_video
from PIL import Image

SECRET = b"content of a file outside the input"
Named = tuple[str, bytes]


def _encoded(work: Path, name: str, *args, **how) -> bytes:
    path = write_video(work / name, *args, **how)
    content = path.read_bytes()
    path.unlink()
    return content


def _noise(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (height, width, 3), np.uint8) for _ in range(count)]


def media(work: Path, seed: int = 0) -> Iterator[Named]:
    """Media files by name; `work` is a scratch directory."""
    chance = random.Random(seed)
    whole = {
        "mp4": _encoded(work, "a.mp4", regular(24, 8)),
        "mkv": _encoded(work, "a.mkv", regular(24, 8)),
        "webm": _encoded(work, "a.webm", regular(24, 8), codec="libvpx"),
        "avi": _encoded(work, "a.avi", regular(24, 8), codec="mjpeg", pix_fmt="yuvj420p"),
        "jpg": layouts.image(3, "JPEG"),
        "png": layouts.image(3),
    }
    for suffix, content in whole.items():
        yield f"whole.{suffix}", content
        yield f"empty.{suffix}", b""
        yield f"noise.{suffix}", chance.randbytes(5000)
        yield f"doubled.{suffix}", content * 2
        for part in range(1, 8):
            yield f"cut{part}.{suffix}", content[: len(content) * part // 8]
        for count in (1, 1, 2, 4, 8, 16, 64, 256, 1024):
            yield f"flipped{chance.randrange(10**6)}.{suffix}", _flipped(content, count, chance)
    yield from _wrong(whole)
    yield from _strange(work)
    yield from _images()


def _flipped(content: bytes, count: int, chance: random.Random) -> bytes:
    broken = bytearray(content)
    for _ in range(count):
        broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    return bytes(broken)


def _wrong(whole: dict[str, bytes]) -> Iterator[Named]:
    """Files whose content does not match their suffix."""
    yield "image.mp4", whole["png"]
    yield "video.jpg", whole["mp4"]
    yield "video.gif", whole["mkv"]
    yield "text.mp4", b"hello, world\n" * 500
    yield "page.mp4", b"<html><body>403 Forbidden</body></html>"
    yield "concat.mp4", b"ffconcat version 1.0\nfile ../outside.mkv\n"
    yield "list.mp4", b"#EXTM3U\n#EXTINF:1,\n../outside.mkv\n#EXT-X-ENDLIST\n"
    yield "dash.mp4", b"<?xml version='1.0'?><MPD><BaseURL>../outside.mkv</BaseURL></MPD>"
    yield "subtitles.mkv", b"1\n00:00:00,000 --> 00:00:01,000\nhi\n"
    yield "drawing.png", b"<svg><image href='../outside.png'/></svg>"
    yield "%03d.mp4", whole["mp4"]
    yield "-i.mp4", whole["mp4"]
    yield "pipe:0.mp4", whole["mp4"]
    yield "new\nline.mp4", whole["mp4"]
    yield "größe \u202e.mp4", whole["mp4"]


def _strange(work: Path) -> Iterator[Named]:
    """Valid videos of unusual kinds."""
    times = regular(12, 8)
    for pix_fmt in ("yuv420p10le", "yuv422p", "yuv444p", "yuv444p10le", "gray"):
        yield f"{pix_fmt}.mp4", _encoded(work, "a.mp4", times, pix_fmt=pix_fmt)
    for matrix in (1, 5, 9, 10):  # BT.709, BT.470, BT.2020 and its constant luminance (HDR)
        colour = dict(pix_fmt="yuv420p10le", colour=(matrix, 1))
        yield f"matrix{matrix}.mp4", _encoded(work, "a.mp4", times, **colour)
    for height, width in ((47, 63), (1, 64), (49, 17)):
        odd = dict(codec="ffv1", pix_fmt="yuv444p")
        yield f"odd{height}.mkv", _encoded(work, "a.mkv", times, _noise(12, height, width), **odd)
    for codec, name in {"libvpx-vp9": "a.webm", "libsvtav1": "a.mkv", "libx265": "a.mp4"}.items():
        if codec in av.codecs_available:
            yield f"{codec}_{name}", _encoded(work, name, times, _noise(12, 64, 64), codec=codec)
    for degrees in (90, 180, 270):
        path = write_video(work / "turned.mp4", times)
        rotate(path, degrees)
        yield f"turned{degrees}.mp4", path.read_bytes()
    for count in (1, 2, 10, 11):
        yield f"{count}_frames.mp4", _encoded(work, "a.mp4", regular(count, 8))
    uneven = np.cumsum([0.01, 0.5, 0.02, 0.9, 0.1] * 4)
    yield "uneven.mp4", _encoded(work, "a.mp4", list(uneven))
    yield "negative.mkv", _encoded(work, "a.mkv", [time - 1 for time in regular(24, 8)])
    yield "late.mp4", _encoded(work, "a.mp4", [time + 5000 for time in times])
    yield "gap.mkv", _encoded(work, "a.mkv", [*times, 3000, 3001])
    yield "long_gap.mkv", _encoded(work, "a.mkv", [*times, 9000, 9001])
    yield "jumps.mkv", _encoded(work, "a.mkv", [3500 * k for k in range(24)])
    ordered = _encoded(work, "a.avi", times, codec="mjpeg", pix_fmt="yuvj420p")
    yield "unordered.avi", _swapped(ordered)
    mp4 = _encoded(work, "a.mp4", regular(24, 8))
    for size in ((65535, 65535), (0, 0), (1, 65535)):
        at = mp4.index(b"avc1", mp4.index(b"stsd")) + 28
        claimed = b"".join(number.to_bytes(2, "big") for number in size)
        yield f"claims{size[0]}x{size[1]}.mp4", mp4[:at] + claimed + mp4[at + 4 :]
    frames = [Image.fromarray(numbered(k)) for k in range(12)]
    for suffix in ("gif", "webp", "png"):
        buffer = io.BytesIO()
        frames[0].save(buffer, suffix, save_all=True, append_images=frames[1:], duration=125)
        yield f"moving.{suffix}", buffer.getvalue()


def _swapped(content: bytes) -> bytes:
    """The frames of an AVI of JPEGs in another order."""
    first = content.index(b"00dc")
    second = content.index(b"00dc", first + 4)
    return content[:first] + content[second:] + content[first:second]


def _images() -> Iterator[Named]:
    for mode, suffix in {"P": "png", "1": "png", "LA": "png", "I;16": "png", "CMYK": "jpg"}.items():
        buffer = io.BytesIO()
        Image.new(mode, (64, 48)).save(buffer, "JPEG" if suffix == "jpg" else "PNG")
        yield f"mode {mode.replace(';', '')}.{suffix}", buffer.getvalue()
    for width, height in ((1, 1), (1, 5000), (5000, 1), (9000, 9000)):
        buffer = io.BytesIO()
        Image.new("L", (width, height)).save(buffer, "PNG")
        yield f"{width}x{height}.png", buffer.getvalue()
    png = bytearray(layouts.image(3))
    png[16:24] = (10**6).to_bytes(4, "big") * 2
    yield "claims_millions.png", bytes(png)


def tars(seed: int = 0) -> Iterator[Named]:
    """Tars by name."""
    chance = random.Random(seed)
    image = layouts.image(7, "JPEG")
    good = {"0.jpg": image, "0.txt": b"good", "0.json": b"{}"}
    hostile = {
        "parent": {"../outside.jpg": image, "../outside.txt": b"x"},
        "absolute": {"/tmp/outside.jpg": image},
        "deep": {"a/../../outside.jpg": image},
        "link": {"1.jpg": _header("1.jpg", tarfile.SYMTYPE, "/etc/passwd")},
        "hard": {"1.jpg": _header("1.jpg", tarfile.LNKTYPE, "../outside.mkv")},
        "device": {"1.jpg": _header("1.jpg", tarfile.CHRTYPE)},
        "pipe": {"1.jpg": _header("1.jpg", tarfile.FIFOTYPE)},
        "folder": {"1.jpg": _header("1.jpg", tarfile.DIRTYPE)},
        "lonely_text": {"1.txt": b"no image"},
        "lonely_image": {"1.jpg": image},
        "bad_json": {"1.jpg": image, "1.json": b"{broken"},
        "latin": {"1.jpg": image, "1.txt": "été".encode("latin-1")},
        "half_a_pair": {"1.jpg": image, "1.json": b'{"caption": "a \\ud800 b"}'},
        "not_utf8": {"\udcff.jpg": image},
        "long": {"1.jpg": image, "1.txt": b"word " * 200_000},
        "broken": {"1.jpg": b"no image", "1.txt": b"x"},
        "no_suffix": {"README": b"x"},
    }
    for name, members in hostile.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for member, content in (good | members).items():
                made = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(member)
                made.size = 0 if made is content else len(content)
                tar.addfile(made, None if made is content else io.BytesIO(content))
        yield f"{name}.tar", buffer.getvalue()
    whole = buffer.getvalue()
    yield "empty.tar", b""
    yield "zeros.tar", bytes(10240)
    yield "text.tar", b"not a tar" * 300
    yield "cut.tar", whole[:1000]
    yield "gzip.tar", b"\x1f\x8b" + chance.randbytes(500)
    for count in (1, 8, 64):
        yield f"flipped{count}.tar", _flipped(whole, count, chance)


def _header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def tables() -> Iterator[Named]:
    """captions.csv for a folder with a.mp4, by the kind of defect."""
    yield "quotes", b'file,caption\na.mp4,"a ""red"" ball, round"\n'
    yield "newlines", b'file,caption\r\na.mp4,"a\r\nred\nball"\r\n'
    yield "mark", b"\xef\xbb\xbffile,caption\na.mp4,x\n"
    yield "latin", "file,caption\na.mp4,été\n".encode("latin-1")
    yield "wide", "file,caption\na.mp4,été\n".encode("utf-16")
    yield "megabyte", b"file,caption\na.mp4," + b"word " * 200_000 + b"\n"
    yield "nul", b"file,caption\na.mp4,a\x00b\n"
    yield "open_quote", b'file,caption\na.mp4,"never closed\n'
    yield "no_column", b"name,words\na.mp4,x\n"
    yield "many_cells", b"file,caption\na.mp4,x,y,z\n"
    yield "few_cells", b"file,caption\na.mp4\n"
    yield "parent", b"file,caption\n../outside.mkv,x\na.mp4,x\n"
    yield "absolute", b"file,caption\n/etc/passwd,x\na.mp4,x\n"
    yield "empty", b""
    yield "bytes", bytes(range(256)) * 4
