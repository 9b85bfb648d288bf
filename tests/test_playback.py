"""Order, times and kind of what players show, for the containers and codecs that people have."""

import io
import itertools
from fractions import Fraction

import av
import numpy as np
import player_media
import pytest
from numbered_clips import numbered, read_number
from PIL import Image
from player_media import encode

from phenaki.data.prepare import clock, items, playback, video
from phenaki.io import images, signatures

FILES = """
avi mjpeg, avi ffv1, mov mjpeg, mov prores_ks, mkv ffv1, mkv libvpx, webm libvpx-vp9, flv flv,
wmv wmv2, mjpeg mjpeg, y4m wrapped_avframe, ivf libvpx, gif gif, avi libx264, avi mpeg4,
mp4 libx264, mp4 libx265, mp4 mpeg4, mov libx264, mkv libx264, mkv mpeg2video, ts libx264,
ts libx265, ts mpeg2video, m2ts libx264, mpg libx264, mpg mpeg1video, mpg mpeg2video,
vob mpeg2video, m2v mpeg2video, flv libx264, asf libx264, h264 libx264, hevc libx265, 3gp libx264,
mxf mpeg2video, mxf libx264, nut libx264
"""
FILES = [tuple(file.split()) for file in FILES.replace("\n", " ").split(",")]
REORDERED = ("libx264", "libx265", "mpeg1video", "mpeg2video", "mpeg4")  # codecs with B-frames


def shown(path, rate: float = 25) -> list[int]:
    """The numbers that the frames show, at `rate`."""
    clips = video.clips(path, frames=1, fps=rate, height=48, width=64)
    return [read_number(clip.video[0]) for clip in clips]


@pytest.mark.parametrize(("suffix", "codec"), FILES)
def test_frames_are_shown_in_order_and_none_is_lost(tmp_path, suffix, codec):
    options = {"bf": "2"} if codec in REORDERED else None
    path = encode(tmp_path / f"a.{suffix}", codec, options=options)
    assert shown(path) == list(range(12))
    with path.open("rb") as file:
        head = signatures.head_of(file)
        assert signatures.truncated(file) is None
    assert items.kind_of(path.name) == "video"
    assert signatures.kind_of_content(head) == (None if suffix == "mjpeg" else "video")


@pytest.mark.parametrize("codec", ["wmv2", "huffyuv"])
def test_a_video_that_its_container_cannot_name_has_a_reason(tmp_path, codec):
    """Program streams have no codes for these."""
    pix_fmt = "yuv422p" if codec == "huffyuv" else None
    path = encode(tmp_path / "a.mpg", codec, pix_fmt=pix_fmt)
    with pytest.raises(images.UnreadableMedia, match="no decoder for its video"):
        shown(path)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts", "flv"])
def test_the_last_frames_are_shown_whichever_stream_is_first(tmp_path, suffix):
    path = encode(tmp_path / f"a.{suffix}", options={"bf": "2"}, sound=True)
    assert shown(path) == list(range(12))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("ts", "libx264"), ("ts", "mpeg2video"), ("m2ts", "libx265"), ("vob", "mpeg2video")],
)
def test_a_clock_that_begins_anew_continues(tmp_path, suffix, codec):
    parts = []
    for first in (0, 12, 24):
        frames = [numbered(first + k) for k in range(12)]
        part = encode(tmp_path / f"{first}.{suffix}", codec, frames, options={"bf": "2"})
        parts.append(part.read_bytes())
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(parts))
    assert shown(path) == list(range(36))
    assert list(video.clips(path, frames=3, fps=25, height=8, width=8))[-1].start == 33 / 25


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_a_recording_begins_at_its_first_complete_group_of_frames(tmp_path, codec):
    options = {"g": "12", "bf": "2"}
    if codec == "libx265":
        options = {"x265-params": "keyint=12:bframes=2:log-level=none"}
    content = encode(tmp_path / "a.ts", codec, 48, options=options).read_bytes()
    (tmp_path / "cut.ts").write_bytes(content[len(content) // 3 // 188 * 188 :])
    numbers = shown(tmp_path / "cut.ts")
    assert 12 <= len(numbers) < 48
    assert numbers == list(range(48))[-len(numbers) :]


A, B = Fraction(1, 10), Fraction(1, 4)  # seconds of a frame


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    {
        "regular": ([(0, 0), (10, 10), (20, 20)], [A, A, B]),
        "restarts": ([(500, None), (510, None), (0, None), (10, None)], [A, B, A, B]),
        "jumps": ([(0, None), (10, None), (9000, None), (9010, None)], [A, B, A, B]),
        "repeats": ([(0, None), (0, None), (10, None)], [B, A, B]),
        "decoding times only": ([(None, 0), (None, 10), (None, None)], [A, A, A]),
        "one frame in two ticks": ([(None, 0), (None, 10), (None, None), (None, None)], [A] * 4),
        "a longer one": ([(None, 0), (None, 10), (None, 20), (None, 45), (None, None)],
                         [A, A, B, A, A]),
        "some without": ([(0, 0), (None, None), (None, None), (30, 30)], [A, A, A, B]),
        "contradicts": ([(10, 0), (0, 10), (30, 20), (20, 30)], [A, A, A, B]),
        "invented": ([(0, 20), (20, 30), (30, 40), (10, 50), (50, None), (40, None)], [A] * 6),
    }.values(),
)  # fmt: skip
def test_times_follow_the_order_of_frames(stamps, seconds):
    frames = [(clock.Stamps(*pair, None), number) for number, pair in enumerate(stamps)]
    lasting = list(clock.durations(iter(frames), Fraction(1, 100), Fraction(60), usual=B))
    assert lasting == list(zip(seconds, range(len(stamps)), strict=True))


def test_a_copy_of_an_avi_in_another_container_is_read_like_it(tmp_path):
    """Its times of decoding are stored as those of display."""
    source = encode(tmp_path / "a.avi", options={"bf": "2"})
    with av.open(str(source)) as old, av.open(str(tmp_path / "a.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.stream = packet.dts, stream
                new.mux(packet)
    assert shown(tmp_path / "a.mp4") == shown(source) == list(range(12))


def test_frames_without_times_are_not_held_for_ever():
    taken = itertools.count()
    endless = ((clock.Stamps(None, None, None), next(taken)) for _ in itertools.repeat(None))
    lasting = clock.durations(endless, Fraction(1, 100), Fraction(60))
    assert list(itertools.islice(lasting, 100)) == [(clock.UNKNOWN, k) for k in range(100)]
    assert next(taken) < 100 + 2 * clock.HELD


def test_times_are_counted_from_the_first_frame(tmp_path):
    frames = list(playback.shown(encode(tmp_path / "a.ts", frames=5)))
    assert [frame.time for frame in frames] == [Fraction(k, 25) for k in range(5)]
    assert [frame.end for frame in frames] == [Fraction(k + 1, 25) for k in range(5)]
    assert [frame.last for frame in frames] == [False] * 4 + [True]
    assert read_number(np.asarray(frames[2].image()[0])) == 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi"])
def test_a_file_whose_bytes_are_missing_is_truncated(tmp_path, suffix):
    content = encode(tmp_path / f"a.{suffix}", "mpeg4", 40).read_bytes()
    part = content[: len(content) * 3 // 4]
    (tmp_path / "part").write_bytes(part)
    for source in (tmp_path / "part", io.BytesIO(part)):
        with pytest.raises(images.UnreadableMedia, match="truncated: [0-9,]+ of [0-9,]+ bytes"):
            next(playback.shown(source))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_longer_second_video_does_not_truncate_the_first(tmp_path, suffix):
    path = encode(tmp_path / f"a.{suffix}", second=100)
    assert shown(path) == list(range(12))


def test_longer_subtitles_do_not_truncate_a_video(tmp_path):
    path = encode(tmp_path / "plain.mp4")
    assert shown(player_media.with_subtitles(path, tmp_path / "a.mkv", 50)) == list(range(12))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_is_no_video(tmp_path, suffix):
    clip = encode(tmp_path / f"clip.{suffix}", sound=True, cover=True)
    assert shown(clip) == list(range(12))
    song = encode(tmp_path / f"song.{suffix}", None, sound=True, cover=True)
    with pytest.raises(images.UnreadableMedia, match="sound with a cover, no video"):
        shown(song)
    with pytest.raises(images.UnreadableMedia, match="no video stream"):
        shown(encode(tmp_path / f"speech.{suffix}", None, sound=True))


@pytest.mark.parametrize(
    ("suffix", "stored", "lasts"),
    [
        (suffix, *milliseconds)
        for suffix in ("gif", "png", "webp", "avif")
        for milliseconds in ((40, 40), (100, 100), (20, 20), (10, 100), (0, 100))
        if (suffix, milliseconds[0]) != ("avif", 0)  # which no writer makes
    ],
)
def test_animated_images_are_videos(tmp_path, suffix, stored, lasts):
    path = tmp_path / f"a.{suffix}"
    player_media.animation(path, [numbered(k) for k in range(5)], stored)
    for source in (path, io.BytesIO(path.read_bytes())):
        frames = list(playback.shown(source, "image"))
        assert [read_number(np.asarray(frame.image()[0])) for frame in frames] == list(range(5))
        assert [float(frame.end - frame.time) for frame in frames] == [lasts / 1000] * 5


def test_the_image_for_other_readers_is_no_frame_of_an_animated_png(tmp_path):
    path = tmp_path / "a.png"
    every = [numbered(k) for k in (99, 0, 1, 2)]
    player_media.animation(path, every, 40, default_image=True)
    assert shown(path) == [0, 1, 2]
    assert read_number(np.asarray(images.read_image(path))) == 0


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(numbered(number)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("names", "kind"),
    {
        "a.JPG a.jpeg a.jpe a.jfif a.pjpeg a.png a.apng a.webp a.bmp a.tif a.avif a.heic a.jp2"
        " a.tga": "image",
        "a.MP4 a.mov a.qt a.m4v a.3g2 a.m2v a.mpe a.vob a.mod a.m2ts a.mts a.asf a.wmv a.flv a.f4v"
        " a.ogv a.mxf a.mjpg a.divx a.rm a.gif": "video",
        "a a.txt a.json a.mp3 a.m4a a.srt a.csv a.tar a.dng": None,
    }.items(),
)
def test_the_kind_of_a_name(names, kind):
    assert {items.kind_of(name) for name in names.split()} == {kind}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "m2ts", "vob", "flv", "wmv", "gif"])
def test_a_video_without_a_suffix_is_known_by_its_content(tmp_path, suffix):
    codec = {"gif": "gif", "wmv": "wmv2", "vob": "mpeg2video"}.get(suffix, "libx264")
    path = encode(tmp_path / f"a.{suffix}", codec).rename(tmp_path / "video")
    assert items.kind_of("video", path) == "video"
    assert shown(path) == list(range(12))


def test_files_of_other_kinds_are_not_taken_for_media(tmp_path):
    contents = {
        "readme": b"hello, world",
        "notes.txt": jpeg(1),
        "Photo": b"P5 is a portable graymap",
        "raw": b"II*\0" + bytes(500),
        "tool": b"\x7fELF" + bytes(500),
        "empty": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert items.kind_of(name, tmp_path / name) is None
    assert items.kind_of("absent", tmp_path / "absent") is None
    (tmp_path / "photo").write_bytes(jpeg(1))
    assert items.kind_of("photo", tmp_path / "photo") == "image"


def test_the_content_decides_and_not_the_suffix(tmp_path):
    moving = encode(tmp_path / "a.mp4").rename(tmp_path / "a.jpg")
    assert shown(moving) == list(range(12))
    Image.fromarray(numbered(3)).save(tmp_path / "b.png")
    (clip,) = video.clips(tmp_path / "b.png", frames=11, fps=8, height=48, width=64)
    assert clip.source_fps == 0 and read_number(clip.video[0]) == 3


def test_a_heic_photograph_is_named(tmp_path):
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000)
    with pytest.raises(images.UnreadableMedia, match="HEIC: convert it to JPEG or PNG"):
        next(playback.shown(io.BytesIO(content)))
