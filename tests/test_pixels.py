"""Pixels of image files: ICC profiles, transparency, 9 to 32 bits; for `--image` and data alike."""

import io
import struct
import zlib

import numpy as np
import player_media
import pytest
from PIL import Image

from phenaki.data.prepare import frames, items, video
from phenaki.io import images

P3 = player_media.icc_profile("RGB", player_media.DISPLAY_P3, 2.2)
GRAY = player_media.icc_profile("GRAY", np.empty(0), 1.0)
# Bradford-adapted Display P3 to sRGB (linear), and the gamma of the profile above.
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])


def encoded(light: np.ndarray) -> np.ndarray:
    """sRGB levels of light (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def of_p3(colour) -> np.ndarray:
    return encoded(P3_TO_SRGB @ (np.asarray(colour) / 255) ** 2.2)


def read(path) -> np.ndarray:
    """The middle pixel as data and as `--image` see it."""
    (clip,) = video.clips(path, frames=3, fps=8, height=16, width=16)
    frame = images.read_frame(path, (16, 16))
    np.testing.assert_array_equal(np.rint(frame * 255), clip.video[0])
    return clip.video[0, 8, 8].astype(int)


COLOUR = (200, 60, 40)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_a_profile_is_applied(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    image = Image.new("RGB", (16, 16), COLOUR)
    image.save(path, icc_profile=P3, quality=100)
    assert of_p3(COLOUR)[0] > 210  # a stronger red than the numbers say
    assert np.abs(read(path) - of_p3(COLOUR)).max() <= 4
    image.save(path, quality=100)
    assert np.abs(read(path) - COLOUR).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "P", "PA"])
def test_a_profile_and_transparency_are_applied_together(tmp_path, mode):
    image = Image.new("RGBA", (16, 16), (*COLOUR, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 16))
    stored = image if mode == "RGBA" else image.quantize(4)
    stored.save(tmp_path / "a.png", icc_profile=P3)
    assert np.abs(read(tmp_path / "a.png") - of_p3(COLOUR)).max() <= 4
    assert images.read_frame(tmp_path / "a.png", (16, 16))[8, 1].tolist() == [1, 1, 1]


def test_a_profile_of_gray_is_applied(tmp_path):
    Image.new("L", (16, 16), 64).save(tmp_path / "a.png", icc_profile=GRAY)
    expected = encoded(np.asarray(64 / 255))
    assert np.abs(read(tmp_path / "a.png") - expected).max() <= 2
    deep = Image.fromarray(np.full((16, 16), 64 * 257, np.uint16))
    deep.save(tmp_path / "b.png", icc_profile=GRAY)
    assert np.abs(read(tmp_path / "b.png") - expected).max() <= 2


def test_images_in_srgb_are_not_changed(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    for profile in (player_media.srgb_profile(), b"no profile", GRAY, P3[:200], None):
        noise.save(tmp_path / "a.png", icc_profile=profile)
        np.testing.assert_array_equal(np.asarray(images.read_image(tmp_path / "a.png")), noise)


def test_frames_of_an_animation_have_its_profile(tmp_path):
    stored = [np.full((16, 16, 3), COLOUR, np.uint8), np.full((16, 16, 3), 255, np.uint8)]
    for suffix in ("webp", "png", "avif"):
        path = player_media.animation(
            tmp_path / f"a.{suffix}", stored, 100, icc_profile=P3, quality=100
        )
        clip = next(video.clips(path, frames=1, fps=10, height=16, width=16))
        assert np.abs(clip.video[0, 8, 8] - of_p3(COLOUR)).max() <= 5, suffix


@pytest.mark.parametrize("suffix", ["avif", "png"])
def test_images_in_hdr_are_shown_as_sdr(tmp_path, suffix):
    """White of 203 cd/m² in PQ is 58 % of the signal, and is shown as in video."""
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (16, 16), (148, 148, 148)).save(path, quality=100)
    assert np.abs(read(path) - 148).max() <= 1
    content, pq = path.read_bytes(), bytes((9, 16))
    if suffix == "avif":  # the tags that the writer has put there
        at = content.index(b"colrnclx") + 8
        tagged = bytearray(content)
        tagged[at : at + 4] = b"\0" + pq[:1] + b"\0" + pq[1:]
    else:
        chunk = b"cICP" + pq + b"\0\1"
        sum_of = struct.pack(">I", zlib.crc32(chunk))
        tagged = content[:33] + b"\0\0\0\4" + chunk + sum_of + content[33:]
    path.write_bytes(tagged)
    assert np.abs(read(path) - 230).max() <= 2


def tiff(path, data: bytes, bits: int, form: int, meaning: int = 1) -> None:
    """A gray TIFF of 16 x 16 pixels, as cameras, scanners and microscopes write them."""
    tags = [
        (256, 3, 16), (257, 3, 16), (258, 3, bits), (259, 3, 1), (262, 3, meaning), (273, 4, 8),
        (277, 3, 1), (278, 3, 16), (279, 4, len(data)), (339, 3, form),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        directory += struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4))


@pytest.mark.parametrize(
    ("value", "dtype", "bits", "form", "level"),
    [  # SampleFormat: 1 unsigned, 2 signed, 3 floating point
        (65535, np.uint16, 16, 1, 255), (32896, np.uint16, 16, 1, 128), (0, np.uint16, 16, 1, 0),
        (32767, np.int16, 16, 2, 255), (-5, np.int16, 16, 2, 0), (255, np.uint8, 12, 1, 255),
        (128 * 257, np.int32, 32, 2, 128), (128 * 257, np.uint32, 32, 1, 128),
        (2**31 - 1, np.int32, 32, 2, 255), (2**32 - 1, np.uint32, 32, 1, 255),
        (2**31, np.uint32, 32, 1, 127), (2**30, np.int32, 32, 2, 127),
        (0.5, np.float32, 32, 3, 128), (1.0, np.float32, 32, 3, 255),
    ],
)  # fmt: skip
def test_pixels_of_more_than_8_bits_are_scaled(tmp_path, value, dtype, bits, form, level):
    count = 256 * bits // (8 * np.dtype(dtype).itemsize)  # 12 bits are packed
    tiff(tmp_path / "a.tif", np.full(count, value, dtype).tobytes(), bits, form)
    assert read(tmp_path / "a.tif").tolist() == [level] * 3


def test_floating_point_pixels_of_another_range_are_refused(tmp_path):
    for value in (2.0, -0.5, float("nan")):
        tiff(tmp_path / "a.tif", np.full(256, value, np.float32).tobytes(), 32, 3)
        with pytest.raises(
            images.UnreadableMedia, match="floating-point pixels from .* to .* 0 to 1"
        ):
            images.read_image(tmp_path / "a.tif")


def test_gray_of_16_bits_has_a_transparent_level(tmp_path):
    values = np.full((16, 16), 1000, np.uint16)
    values[:, :4] = 40_000
    Image.fromarray(values).save(tmp_path / "a.png", transparency=1000)
    shown = np.asarray(images.read_image(tmp_path / "a.png"))
    assert shown[8, 8].tolist() == [255] * 3 and shown[8, 1].tolist() == [40_000 // 257] * 3


def test_gray_of_16_bits_may_count_from_white(tmp_path):
    tiff(tmp_path / "a.tif", np.full(256, 100 * 257, np.uint16).tobytes(), 16, 1, meaning=0)
    assert read(tmp_path / "a.tif").tolist() == [155] * 3


def test_colour_of_16_bits_has_a_transparent_colour(tmp_path):
    """Of a PNG; Pillow writes none of 16 bits."""
    rows = np.full((16, 16, 3), (40_000, 20_000, 1000), ">u2")
    rows[:, :4] = 0

    def chunk(name: bytes, data: bytes) -> bytes:
        sum_of = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", sum_of)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0))
    clear = chunk(b"tRNS", struct.pack(">3H", 40_000, 20_000, 1000))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    content = b"\x89PNG\r\n\x1a\n" + header + clear + data + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    shown = np.asarray(images.read_image(tmp_path / "a.png"))
    assert shown[8, 8].tolist() == [255] * 3 and shown[8, 1].tolist() == [0] * 3


def test_arrays_with_transparency_are_over_white():
    array = np.zeros((16, 16, 4), np.uint8)
    array[..., 0], array[:, :8, 3] = 200, 255
    (clip,) = frames.clips(items.FrameSequence([array]), frames=3, fps=8.0, height=16, width=16)
    assert clip.video[0, 8, 2].tolist() == [200, 0, 0]
    assert clip.video[0, 8, 12].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_an_image_is_the_same_whatever_its_name(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 16), COLOUR).save(tmp_path / f"a.{suffix}", exif=exif)
    content = (tmp_path / f"a.{suffix}").read_bytes()
    expected = images.fit(images.read_image(io.BytesIO(content)), 16, 16)
    for guess in ("image", "video"):
        (clip,) = video.clips(
            io.BytesIO(content), frames=3, fps=8, height=16, width=16, guess=guess
        )
        np.testing.assert_array_equal(clip.video[0], expected)


def test_only_the_first_image_of_a_camera_file_is_read(tmp_path):
    first, second = Image.new("RGB", (16, 16), COLOUR), Image.new("RGB", (16, 16), "black")
    first.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[second])
    path = (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    (clip,) = video.clips(path, frames=1, fps=8, height=16, width=16, guess="image")
    assert np.abs(clip.video[0, 8, 8].astype(int) - COLOUR).max() <= 4
