"""Decoding: timing, orientation and colours of frames; corrupt files give a reason."""

import functools
import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import (
    SHARED,
    numbered,
    read_number,
    regular,
    rotate,
    solid,
    write_video,
)
from PIL import Image

from phenaki.data.prepare import video
from phenaki.io import images

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs the shared clips")
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
cut = functools.partial(video.clips, frames=3, fps=8, height=48, width=64)


def numbers(path, fps: float) -> list[int]:
    """The source frame shown at each sample."""
    clips = list(cut(path, frames=1, fps=fps))
    assert [clip.start for clip in clips] == pytest.approx([k / fps for k in range(len(clips))])
    return [read_number(clip.video[0]) for clip in clips]


def by_definition(times, end, fps) -> list[int]:
    """The last frame with pts <= t0 + k / fps, until the end of the video."""
    shown, tick = [], Fraction(1, 90_000)
    while (target := times[0] + len(shown) / Fraction(str(fps))) < end - tick:
        shown.append(max(i for i, time in enumerate(times) if time <= target + tick))
    return shown


@pytest.mark.parametrize("seed", range(6))
def test_last_frame_not_after_the_target_time_is_shown(tmp_path, seed):
    random = np.random.default_rng(seed)
    gaps = random.integers(500, 20_000, 40)  # 1/90000 s: 4.5 to 180 frames per second
    ticks = np.concatenate([[random.integers(0, 30_000)], gaps]).cumsum()
    times = [Fraction(int(tick), 90_000) for tick in ticks]
    path = write_video(tmp_path / "variable.mp4", times)
    fps = float(random.choice([6, 8, 12.5, 29.97, 30]))
    shown = numbers(path, fps)
    expected = by_definition(times, times[-1], fps)
    assert shown[: len(expected)] == expected
    assert set(shown[len(expected) :]) <= {40}  # the last frame, for its duration in the file


@pytest.mark.parametrize("rate", [8, 24, Fraction(30_000, 1001), 60])
def test_a_clip_has_the_rate_of_its_source(tmp_path, rate):
    times = [k / Fraction(rate) for k in range(40)]
    clips = list(cut(write_video(tmp_path / "a.mp4", times), frames=3, fps=6))
    assert [clip.source_fps for clip in clips] == pytest.approx(
        [float(rate)] * len(clips), rel=0.01
    )
    uneven = [0, 1, 1.1, 1.2, 1.3, 2]  # five frames in the first two seconds
    (clip,) = cut(write_video(tmp_path / "b.mp4", uneven), frames=3, fps=1.5)
    assert clip.source_fps == pytest.approx(2.5, rel=0.01)
    (clip,) = cut(io.BytesIO(png()))
    assert clip.source_fps == 0


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(numbered(1)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_video_lasts_until_its_last_frame_ends(tmp_path):
    assert numbers(write_video(tmp_path / "a.mp4", regular(10, 10)), 8) == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("rate", [24, 30, 23.976, 59.94])
def test_milliseconds_of_matroska_neither_drop_nor_repeat_a_frame(tmp_path, rate):
    path = write_video(tmp_path / "a.mkv", regular(60, rate))
    assert numbers(path, rate)[:60] == list(range(60))


def test_clips_follow_each_other_without_overlap(tmp_path):
    path = write_video(tmp_path / "a.mp4", regular(40, 8))
    clips = list(cut(path, frames=11))
    assert [[read_number(image) for image in clip.video] for clip in clips] == [
        list(range(11)),
        list(range(11, 22)),
        list(range(22, 33)),
    ]
    assert [clip.start for clip in clips] == [0, 11 / 8, 22 / 8]


def test_a_video_of_one_frame_is_an_image(tmp_path):
    (clip,) = cut(write_video(tmp_path / "a.mp4", [0], codec="mjpeg", pix_fmt="yuvj420p"))
    assert clip.video.shape == (1, 48, 64, 3)
    assert clip.start == 0


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotation_is_undone(tmp_path, clockwise):
    upright = np.zeros((64, 32, 3), np.uint8)
    upright[:20, :10] = 255
    stored = np.rot90(upright, clockwise // 90)  # turning it clockwise makes it upright
    path = write_video(tmp_path / "a.mp4", regular(4, 8), [np.ascontiguousarray(stored)] * 4)
    rotate(path, clockwise)
    (clip,) = cut(path, height=64, width=32)
    assert clip.source_size == (64, 32)
    assert np.abs(clip.video[0].astype(int) - upright).max() < 30


@pytest.mark.parametrize(("code", "matrix"), [(6, BT601), (1, BT709), (9, BT2020)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_colours_follow_matrix_range_and_depth(tmp_path, code, matrix, full, bits):
    for rgb in [(200, 50, 30), (20, 180, 90), (255, 255, 255), (12, 12, 12)]:
        frames = [solid(rgb, matrix, full, bits) for _ in range(3)]
        name = "yuv420p" if bits == 8 else "yuv420p10le"
        tags = (code, 2 if full else 1)
        path = write_video(tmp_path / "a.mp4", regular(3, 8), frames, pix_fmt=name, colour=tags)
        (clip,) = cut(path)
        assert np.abs(clip.video.astype(int) - rgb).max() <= 2, (rgb, clip.video[0, 0, 0])


@pytest.mark.parametrize(("height", "matrix"), [(48, BT601), (720, BT709)])
def test_untagged_colours_follow_the_size(tmp_path, height, matrix):
    frame = solid((200, 50, 30), matrix, full=False, bits=8, height=height)
    path = write_video(tmp_path / "a.mp4", [0], [frame], colour=(2, 1))
    (clip,) = cut(path)
    assert np.abs(clip.video.astype(int) - (200, 50, 30)).max() <= 2


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    stored = np.zeros((64, 32, 3), np.uint8)  # twice as wide on the screen: 64 x 64
    stored[16:48, 8:24] = 255
    path = write_video(tmp_path / "a.mp4", regular(3, 8), [stored] * 3, aspect=Fraction(2))
    (clip,) = cut(path, height=64, width=64)
    assert clip.source_size == (64, 64)
    assert (clip.video[0, 20:44, 20:44] > 200).all()
    assert (clip.video[0, :, :12] < 50).all()


def test_resize_is_antialiased():
    board = np.indices((96, 96)).sum(0) % 2 * 255
    image = Image.fromarray(np.repeat(board[..., None], 3, -1).astype(np.uint8))
    small = images.fit(image, 12, 12)
    assert np.abs(small.astype(int) - 127).max() <= 3


@pytest.mark.parametrize(("crop", "middle"), [(0.0, 16), (0.5, 32), (1.0, 48)])
def test_short_side_fits_and_the_rest_is_cropped(crop, middle):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (32, 64, 3))
    result = images.fit(Image.fromarray(np.ascontiguousarray(ramp)), 16, 16, (0.5, crop))
    assert result.shape == (16, 16, 3)
    assert abs(result.mean() - (middle - 0.5)) < 0.6


def test_exif_orientation_is_applied(tmp_path):
    upright = numbered(0b10011)
    for orientation, stored in {3: np.rot90(upright, 2), 6: np.rot90(upright, 1)}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
        np.testing.assert_array_equal(np.asarray(images.read_image(path)), upright)


def test_every_kind_of_pixel_becomes_rgb(tmp_path):
    grey = np.full((8, 8), 100, np.uint8)
    clear = np.dstack([np.full((8, 8, 3), 10, np.uint8), np.zeros((8, 8), np.uint8)])
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 50, 30])
    files = {
        "grey.png": (Image.fromarray(grey), (100,) * 3),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), (100,) * 3),
        "bilevel.png": (Image.fromarray(grey > 50), (255,) * 3),
        "clear.png": (Image.fromarray(clear), (255,) * 3),
        "palette.png": (palette, (200, 50, 30)),
        "inks.jpg": (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (254, 0, 0)),
        "web.webp": (Image.new("RGB", (8, 8), (200, 50, 30)), (200, 50, 30)),
    }
    for name, (image, expected) in files.items():
        image.save(tmp_path / name)
        pixels = np.asarray(images.read_image(tmp_path / name)).astype(int)
        assert np.abs(pixels - expected).max() <= 4, (name, pixels[0, 0])


def huge_png() -> bytes:
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    for chunk in (b"IHDR" + header, b"IDAT" + zlib.compress(bytes(100))):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content


def test_corrupt_images_give_a_reason(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        whole, "PNG"
    )
    contents = {
        "empty.png": (b"", "cannot identify"),
        "text.jpg": (b"hello", "cannot identify"),
        "cut.png": (whole.getvalue()[:4000], "not readable"),
        "huge.png": (huge_png(), "pixels"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(images.UnreadableMedia, match=reason) as caught:
            list(cut(tmp_path / name, guess="image"))
        assert "\n" not in caught.value.reason
        assert str(tmp_path) not in caught.value.reason


def test_corrupt_videos_give_a_reason(tmp_path):
    good = write_video(tmp_path / "good.mp4", regular(60, 8)).read_bytes()
    mkv = write_video(tmp_path / "good.mkv", regular(60, 8)).read_bytes()
    contents = {
        "empty.mp4": (b"", "not readable"),
        "text.mp4": (b"hello, world" * 100, "not readable"),
        "cut.mp4": (good[: len(good) // 2], "truncated"),
        "cut.mkv": (mkv[: len(mkv) // 2], "truncated"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(images.UnreadableMedia, match=reason) as caught:
            list(cut(tmp_path / name))
        assert "\n" not in caught.value.reason
        assert str(tmp_path) not in caught.value.reason
    with pytest.raises(images.UnreadableMedia, match="not readable: no such file"):
        list(cut(tmp_path / "absent.mp4"))
    with pytest.raises(images.UnreadableMedia, match="too short: 8 frames at 8 fps, 11 needed"):
        list(cut(write_video(tmp_path / "short.mp4", regular(8, 8)), frames=11))


def test_clips_are_yielded_while_the_file_is_read(tmp_path):
    content = bytearray(write_video(tmp_path / "a.mp4", regular(200, 8)).read_bytes())
    samples = content.index(b"mdat")
    middle = (samples + content.index(b"moov")) // 2
    content[middle : middle + 3000] = bytes(3000)
    stream = cut(io.BytesIO(content))
    assert [read_number(image) for image in next(stream).video] == [0, 1, 2]
    with pytest.raises(images.UnreadableMedia, match="corrupt frame at"):
        list(stream)


@needs_shared
def test_shared_frame_numbers():
    # Ten frames at 10 fps; at 8 fps frames 4 and 9 are not shown.
    path = SHARED / "codec_h265_10frames_framenumbers.mp4"
    read = functools.partial(video.clips, path, height=128, width=128, frames=1)
    every = [clip.video for clip in read(fps=10)]
    assert len(every) == 10
    sampled = [clip.video for clip in read(fps=8)]
    for image, index in zip(sampled, [0, 1, 2, 3, 5, 6, 7, 8], strict=True):
        np.testing.assert_array_equal(image, every[index])


@needs_shared
def test_shared_rotations_and_broken_files():
    for degrees, size in {0: (320, 568), 90: (568, 320), 180: (320, 568), 270: (568, 320)}.items():
        clip = next(cut(SHARED / f"rot_{degrees}.mov", frames=1))
        assert clip.source_size == size
    assert len(list(cut(SHARED / "bad_unordered_pts.mov", frames=1, fps=32))) == 4
    with pytest.raises(images.UnreadableMedia, match="after 28 frames"):
        list(cut(SHARED / "bad_corrupted.mp4"))


@pytest.mark.parametrize("name", ["a:b.mp4", "file:x.mp4", "-x.mp4", "concat:x.mp4", "x:.mp4"])
def test_a_name_is_a_file_and_never_a_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", [0, 1, 2]).rename(name)
    for path in (name, Path(name)):
        assert len(list(video.clips(path, frames=1, fps=1, height=16, width=16))) == 3


def test_an_address_is_not_opened(tmp_path):
    with pytest.raises(images.UnreadableMedia, match="no such file"):
        next(video.clips("http://127.0.0.1:1/x.mp4", frames=1, fps=1, height=16, width=16))
