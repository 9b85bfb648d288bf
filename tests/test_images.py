"""The reader of images: `--image` sees the pixels that prepare_data stores, whatever the format."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from phenaki.data import clip_records
from phenaki.data.prepare import run
from phenaki.errors import UserError
from phenaki.io import images, media

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 30, 44


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def gray_16(path) -> None:
    Image.fromarray(noise(HEIGHT, WIDTH, dtype=np.uint16)).save(path)


def rgb_16(path) -> None:
    """Pillow reads such a file and cannot write one."""
    rows = noise(HEIGHT, WIDTH * 3, dtype=np.uint16).astype(">u2")
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks.items():
        content += struct.pack(">I", len(body)) + name + body
        content += struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(content)


def rgba(path) -> None:
    Image.fromarray(noise(HEIGHT, WIDTH, 4)).save(path)


def transparent_palette(path) -> None:
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3)).quantize(16)
    image.save(path, transparency=bytes(range(0, 256, 16)))


def rotated(path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(WIDTH, HEIGHT, 3)).save(path, exif=exif)


@pytest.mark.parametrize("write", [gray_16, rgb_16, rgba, transparent_palette, rotated])
def test_image_pixels_are_those_that_prepare_data_stores(tmp_path, write: Callable):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.png"
    write(path)
    size = dict(height=16, width=24)  # resized and cropped
    options = run.PrepareOptions(
        tmp_path / "in", tmp_path / "set", **size, encoding="png", validation=0.0
    )
    run.prepare(options)
    (record,) = (tmp_path / "set").glob("clips-image_train.tfrecord-00000-of-00001")
    dataset = clip_records.shard(
        str(record), tmp_path / "set", "image", clip_records.ClipSize(1, 16, 24, 8.0)
    )
    (stored,) = dataset.as_numpy_iterator()
    frame = images.read_frame(path, (16, 24))
    assert frame.dtype == np.float32 and frame.std() > 0.02
    np.testing.assert_array_equal(np.rint(frame * 255).astype(np.uint8), stored["video"][0])


def test_16_bits_are_scaled_and_transparency_is_white(tmp_path):
    Image.fromarray(np.full((8, 8), 128 * 257, np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(images.read_frame(tmp_path / "a.png", (8, 8)), 128 / 255, atol=1e-6)
    clear = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "b.png")
    assert (images.read_frame(tmp_path / "b.png", (8, 8)) == 1).all()


def test_a_written_png_is_read_back(tmp_path):
    image = noise(16, 24, 3)
    media.write_png(tmp_path / "a.png", image, scale=2)
    read = images.read_frame(tmp_path / "a.png", (32, 48))
    np.testing.assert_array_equal(media.as_uint8(read, rank=3), media.enlarge(image, 2))


def test_read_frame_crops_the_centre_upright(tmp_path):
    image = Image.fromarray(np.zeros((40, 80, 3), np.uint8))
    image.paste((255, 0, 0), (20, 0, 60, 40))
    image.paste((0, 255, 0), (20, 0, 60, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it
    image.rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    read = images.read_frame(tmp_path / "a.png", (20, 20))
    assert read.shape == (20, 20, 3)
    np.testing.assert_allclose(read[12, 1:-1], [[1, 0, 0]] * 18, atol=0.02)
    np.testing.assert_allclose(read[1, 1:-1], [[0, 1, 0]] * 18, atol=0.02)


def test_read_frame_names_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.png: not an image"):
        images.read_frame(tmp_path / "a.png", (8, 8))
    with pytest.raises(FileNotFoundError) as missing:
        images.read_frame(tmp_path / "b.png", (8, 8))
    assert missing.value.filename.endswith("b.png")


def test_a_resize_is_logged(tmp_path):
    Image.fromarray(np.zeros((20, 10, 3), np.uint8)).save(tmp_path / "a.png")
    logged = []
    assert images.read_frame(tmp_path / "a.png", (20, 10), logged.append).shape == (20, 10, 3)
    assert not logged
    images.read_frame(tmp_path / "a.png", (8, 8), logged.append)
    assert logged == [f"{tmp_path}/a.png: 10x20 px resized and center-cropped to 8x8."]


def test_a_finer_image_is_resized_without_aliasing(tmp_path):
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(np.stack([checks] * 3, -1).astype(np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_allclose(images.read_frame(tmp_path / "a.png", (8, 8)), 0.5, atol=0.05)
