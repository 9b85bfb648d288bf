"""Whether a file is an image or a video, by suffix or first bytes; whether its end is missing."""

import io
import os
from pathlib import PurePosixPath
from typing import Literal

MediaKind = Literal["image", "video"]

_VIDEO = (
    "mp4 m4v mov qt mkv mk3d webm avi divx mpg mpeg mpe m1v m2v mpv mp2v vob vro mod tod ts tp trp "
    "m2t m2ts mts 3gp 3g2 3gpp wmv asf flv f4v ogv ogm gif y4m mxf rm rmvb dv dif mjpg mjpeg h264 "
    "264 h265 265 hevc ivf obu nut insv lrv"
)
_IMAGE = (
    "jpg jpeg jpe jfif jif jfi pjpeg pjp png apng webp bmp dib tif tiff avif heic heif hif ppm pgm "
    "pbm pnm jp2 j2k jpf jpx tga qoi"
)
_KINDS: dict[str, MediaKind] = {
    **dict.fromkeys((f".{suffix}" for suffix in _VIDEO.split()), "video"),
    **dict.fromkeys((f".{suffix}" for suffix in _IMAGE.split()), "image"),
}
# Suffixes of files that come in millions next to media; they are not opened to look for media.
_NEVER = frozenset(
    ".txt .json .jsonl .csv .tsv .parquet .tar .tfrecord .tfrecords .gz .zip .zst .xz .npy .npz "
    ".srt .vtt .ass .xml .md .html .yaml .yml .py .pkl .log .mp3 .m4a .wav .flac .aac .opus "
    ".dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .svg .pdf".split()
)
_JPEG = b"\xff\xd8\xff"
_ENDS_AND_BEGINS = b"\xff\xd9\xff\xd8"  # between the images of a motion JPEG
_MAX_IMAGE = 2**26  # bytes
_TAGS = 2**14  # bytes that have the tags of colour
HEAD = 1024  # bytes that `kind_of_content` needs

_IMAGES = (
    b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"qoif",
    b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51", b"8BPS", *(b"P%d" % n for n in range(1, 7)),
)  # fmt: skip
_RAW = (b"II*\0", b"MM\0*", b"P")  # too common, in raw photographs and in text, without a suffix
_VIDEOS = (
    b"GIF87a", b"GIF89a", b"\x1aE\xdf\xa3", b"OggS", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf",
    b"\0\0\x01\xba", b"\0\0\x01\xb3", b"\x06\x0e\x2b\x34\x02\x05", b"YUV4MPEG2", b"DKIF", b".RMF",
    b"\0\0\0\x01\x67", b"\0\0\0\x01\x40\x01", b"nut/multimedia",
)  # fmt: skip
_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # first in QuickTime without ftyp
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"msf1", b"hevc", b"hevx")
_PACKETS = ((0, 188), (4, 192), (0, 204))  # offset and size of the packets of transport streams


def kind_of_suffix(name: str) -> MediaKind | None:
    """The kind of a file by its suffix; None for other files."""
    return _KINDS.get(PurePosixPath(name).suffix.lower())


def may_be_media(name: str) -> bool:
    """Whether a file whose suffix is no kind of media should be opened to look for media."""
    suffixes = PurePosixPath(name).suffixes
    return not any(suffix.lower() in _NEVER for suffix in suffixes[-2:])


def kind_of_file(file: io.BufferedIOBase, guess: MediaKind) -> MediaKind:
    """The kind of an open file by its content, or `guess` where that does not tell."""
    head = head_of(file)
    if head.startswith(_JPEG) and guess == "video":
        found = _ENDS_AND_BEGINS in file.read(_MAX_IMAGE)
        file.seek(0)
        return "video" if found else "image"
    return kind_of_content(head) or guess


def kind_of_content(head: bytes, named: bool = True) -> MediaKind | None:
    """The kind of a file by its first `HEAD` bytes; None where they do not tell.

    A JPEG may be the first of a motion JPEG: its name tells. An animation in a format of images
    is an "image": its reader knows how many frames it has.

    Args:
        named: the suffix is one of media; else the bytes must leave no doubt.
    """
    if head.startswith(_JPEG):
        return None if named else "image"
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "image" if named or not head.startswith(_RAW) else None
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "image"
    if head[4:8] == b"ftyp":
        return "image" if head[8:12] in (b"avif", b"avis", *_HEIF) else "video"
    if head.startswith(_VIDEOS) or head[4:8] in _ATOMS:
        return "video"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"CDXA"):
        return "video"
    for offset, size in _PACKETS:
        if len(head) > 4 * size and {head[offset + size * k] for k in range(4)} == {0x47}:
            return "video"
    return None


def is_heif(head: bytes) -> bool:
    """Whether a file is a HEIC photograph."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF


def head_of(file: io.BufferedIOBase) -> bytes:
    """The first `HEAD` bytes of an open file, which is then at its start."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head


def colour_tags(file: io.BufferedIOBase) -> tuple[int, int] | None:
    """(transfer, primaries) of H.273 in the header of an AVIF or PNG, whose file is at its start.

    They are in AVIF's box `colr` of type `nclx` and in PNG's chunk `cICP`; None without any.
    """
    file.seek(0)
    head = file.read(_TAGS)
    file.seek(0)
    if head[4:8] == b"ftyp":
        at = head.find(b"colrnclx") + 8  # two bytes each
        return (head[at + 3], head[at + 1]) if 8 <= at < len(head) - 3 else None
    at = head.find(b"\0\0\0\4cICP") + 8
    png = head.startswith(_IMAGES[0]) and 8 <= at < len(head) - 1
    return (head[at + 1], head[at]) if png else None


def truncated(file: io.BufferedIOBase) -> tuple[int, int] | None:
    """(bytes, bytes that its header declares) of an MP4, Matroska or AVI file that ends early.

    The durations in a header do not tell: they are those of the longest track, which may be
    subtitles. The file is then at its start.
    """
    size = file.seek(0, os.SEEK_END)
    declared = _declared(file, size)
    file.seek(0)
    return (size, declared) if declared > size else None


def _declared(file: io.BufferedIOBase, size: int) -> int:
    head = head_of(file)
    if head.startswith(b"\x1aE\xdf\xa3"):
        return _matroska(head)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[4:8] == b"ftyp" or head[4:8] in _ATOMS:
        return _mp4(file, size)
    return 0


def _matroska(head: bytes) -> int:
    """The end of the segment, the second element of the file; 0 if it is unknown."""
    length, at = _vint(head, 4)
    segment = at + length
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return 0
    length, at = _vint(head, segment + 4)
    return at + length if length else 0


def _vint(head: bytes, at: int) -> tuple[int, int]:
    """(value, end) of an EBML size of one to eight bytes; value 0 for an unknown size."""
    if at >= len(head) or not head[at]:
        return 0, at
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (0 if value == (1 << 7 * width) - 1 else value), at + width


def _mp4(file: io.BufferedIOBase, size: int) -> int:
    """The end of the last box of samples."""
    at = end = 0
    while at + 8 <= size:
        file.seek(at)
        box = file.read(16)
        length, name = int.from_bytes(box[:4], "big"), box[4:8]
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if name in (b"mdat", b"moof", b"moov"):
            end = at + length
        if length < 8 or not name.isalnum():
            break  # 0: to the end of the file; else junk after the last box
        at += length
    return end
