"""What players do after decoding: orientation, aspect, interlacing, HDR, range, transparency."""

import io
from fractions import Fraction

import av
import numpy as np
import player_media
import pytest
from numbered_clips import numbered
from PIL import Image
from player_media import encode, planes

from phenaki.data.prepare import display, playback, video
from phenaki.io import tone_mapping

PQ, HLG = tone_mapping.PQ, tone_mapping.HLG
BT709, BT2020, P3 = tone_mapping.BT709, tone_mapping.BT2020, tone_mapping.P3_D65
CORNER = np.zeros((48, 64, 3), np.uint8)
CORNER[:16, :24] = 255  # an asymmetric shape in the top left
CORNER[:6, :40] = 255


def first(path, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame 0 as int [h w 3]."""
    clip = next(video.clips(path, frames=1, fps=25, height=height, width=width))
    return clip.video[0].astype(int)


MATRICES = {  # (a, b, c, d): what is shown of the stored image
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mov", "mjpeg")])
def test_frames_are_turned_and_mirrored_like_their_display_matrix(tmp_path, suffix, codec):
    path = encode(tmp_path / f"a.{suffix}", codec, [CORNER] * 3)
    for matrix, seen in MATRICES.items():
        player_media.display_matrix(path, *matrix)
        expected = seen(CORNER).astype(int)
        shown = first(path, *expected.shape[:2])
        assert np.abs(shown - expected).mean() < 4, matrix


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_the_orientation_in_the_exif_of_a_motion_jpeg_is_applied(tmp_path, orientation):
    """FFmpeg gives frames both EXIF, a kind of data that PyAV does not know, and its matrix."""
    exif, jpeg = Image.Exif(), io.BytesIO()
    exif[0x112], exif[0x10F] = orientation, "a camera"
    Image.fromarray(CORNER).save(jpeg, "JPEG", quality=95, exif=exif)
    (tmp_path / "a.mjpeg").write_bytes(jpeg.getvalue() * 3)
    seen = {1: (1, 0, 0, 1), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0)}[orientation]
    expected = MATRICES[seen](CORNER).astype(int)
    assert np.abs(first(tmp_path / "a.mjpeg", *expected.shape[:2]) - expected).mean() < 4


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "libx264"), ("ts", "libx264"),
     ("vob", "mpeg2video"), ("m2v", "mpeg2video"), ("mov", "prores_ks")],
)  # fmt: skip
def test_pixels_that_are_not_square_are_stretched(tmp_path, suffix, codec):
    # 16:9 of a DVD in 4:3: each pixel is 4/3 as wide as it is high.
    path = encode(tmp_path / f"a.{suffix}", codec, 12, sample_aspect_ratio=Fraction(4, 3))
    clip = next(video.clips(path, frames=1, fps=25, height=48, width=48))
    assert clip.source_size == (48, 85)


def box(time: int) -> np.ndarray:
    """A white box that moves by 6 pixels per field."""
    image = np.zeros((48, 128, 3), np.uint8)
    image[12:36, 8 + 6 * time : 32 + 6 * time] = 255
    return image


def comb(image) -> float:
    """How much rows differ from those next to them within the box: 0 for a progressive frame."""
    rows = np.asarray(image).astype(int)[14:34, :, 0]
    return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mkv", "libx264"), ("mp4", "libx264"), ("ts", "mpeg2video"), ("vob", "mpeg2video"),
     ("avi", "mpeg4")],
)  # fmt: skip
def test_interlaced_frames_become_progressive(tmp_path, suffix, codec):
    # FFmpeg's encoders flag the field of the odd rows as the first in time.
    fields = player_media.woven([box(2 * k + 1) for k in range(6)], [box(2 * k) for k in range(6)])
    assert comb(fields[2]) > 20
    options = {"flags": "+ildct+ilme", "bf": "2"}
    path = encode(tmp_path / f"a.{suffix}", codec, fields, options=options)
    frames = [frame.image()[0] for frame in playback.shown(path)]
    assert len(frames) == 6
    assert max(map(comb, frames)) < 6
    for frame, field in zip(frames, fields, strict=True):  # the first field is kept
        assert np.abs(np.asarray(frame)[1::2].astype(int) - field[1::2]).mean() < 1


def test_only_interlaced_frames_are_changed():
    frames = []
    for number in range(8):
        frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = number
        frames.append((number, frame))
    same = list(display.deinterlaced(iter(frames)))
    assert all(one is other for (_, one), (_, other) in zip(frames, same, strict=True))


def tagged(path, codec, colour, transfer: int, primaries: int, **more):
    """A video of one colour [Y Cb Cr] from 0 to 1, in limited range of 10 bits."""
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p10le"
    luma, *chroma = colour
    levels = (64 + 876 * luma, *(512 + 896 * c for c in chroma))
    frames = [planes(levels, pix_fmt) for _ in range(3)]
    tags = dict(color_trc=transfer, color_primaries=primaries, colorspace=9)
    for frame in frames:  # ProRes takes the tags of frames
        for name, value in tags.items():
            setattr(frame, name, value)
    return encode(path, codec, frames, pix_fmt=pix_fmt, **tags, color_range=1, **more)


@pytest.mark.parametrize(
    ("transfer", "signal", "level"),
    [  # BT.2408, table 1: signals of 203 and 26 cd/m2 on the reference display
        (PQ, 0.58, 230), (HLG, 0.75, 230), (PQ, 0.38, 108), (HLG, 0.38, 108),
        (PQ, 0.7518, 255), (HLG, 1.0, 255), (PQ, 1.0, 255), (PQ, 0.0, 0), (HLG, 0.0, 0),
    ],
)  # fmt: skip
def test_hdr_is_shown_as_sdr(tmp_path, transfer, signal, level):
    path = tagged(tmp_path / "a.mp4", "libx265", (signal, 0, 0), transfer, BT2020)
    shown = first(path)
    assert np.abs(shown - level).max() <= 3, shown[0, 0]


@pytest.mark.parametrize(("transfer", "white"), [(PQ, 0.58), (HLG, 0.75)])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mkv", "libx264"), ("ts", "libx265"), ("mov", "prores_ks"), ("mkv", "libsvtav1")],
)
def test_hdr_is_known_in_every_container(tmp_path, suffix, codec, transfer, white):
    options = {"svtav1-params": "lp=1"} if codec == "libsvtav1" else None
    path = tmp_path / f"a.{suffix}"
    shown = first(tagged(path, codec, (white, 0, 0), transfer, BT2020, options=options))
    assert np.abs(shown - 230).max() <= 3, shown[0, 0]


def test_brightness_keeps_its_order_and_shadows_their_light():
    ramp = np.repeat((np.arange(1024) << 6).astype(np.uint16)[None, :, None], 3, -1)
    for transfer in (PQ, HLG):
        levels = tone_mapping.to_sdr(ramp, transfer, BT2020)[0, :, 0].astype(int)
        assert (np.diff(levels) >= 0).all() and levels[0] == 0 and levels[-1] == 255
    # 10 cd/m2 are (10/203)^(1/2.4) of SDR white; their PQ signal is .2997 (BT.2100).
    assert tone_mapping.to_sdr(ramp, PQ, BT2020)[0, round(0.2997 * 1023), 0] == pytest.approx(
        255 * (10 / 203) ** (1 / 2.4), abs=1
    )


# BT.2087 and SMPTE EG 432-1: light of BT.709 from that of BT.2020 and of P3.
TO_BT709 = {
    BT2020: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    P3: [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
}


@pytest.mark.parametrize("primaries", [BT2020, P3])
@pytest.mark.parametrize("rgb", [(0.5, 0.4, 0.3), (0.3, 0.5, 0.35), (0.9, 0.2, 0.2), (1, 1, 1)])
def test_wide_primaries_become_those_of_sdr(tmp_path, primaries, rgb):
    red, green, blue = rgb
    luma = 0.2627 * red + 0.678 * green + 0.0593 * blue  # BT.2020's matrix
    colour = (luma, (blue - luma) / 1.8814, (red - luma) / 1.4746)
    shown = first(tagged(tmp_path / "a.mkv", "libx264", colour, 1, primaries))
    light = np.clip(TO_BT709[primaries] @ np.power(rgb, 2.4), 0, 1)
    assert np.abs(shown - 255 * light ** (1 / 2.4)).max() <= 3, shown[0, 0]


def test_saturated_hdr_keeps_its_hue():
    red = np.zeros((1, 1, 3), np.uint16)
    red[..., 0] = 2**16 - 1
    assert tone_mapping.to_sdr(red, PQ, BT2020)[0, 0].tolist() == [255, 0, 0]
    plain = np.full((1, 1, 3), 2**15, np.uint16)
    assert (
        tone_mapping.to_sdr(plain, PQ, 2).tolist()
        == tone_mapping.to_sdr(plain, PQ, BT2020).tolist()
    )


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "full"),
    [("mp4", "libx264", "yuv420p", False), ("mp4", "libx264", "yuv420p", True),
     ("webm", "libvpx-vp9", "yuv420p", False), ("webm", "libvpx-vp9", "yuv420p", True),
     ("avi", "mjpeg", "yuvj420p", True), ("mkv", "ffv1", "gray", True),
     ("mkv", "ffv1", "bgr0", True), ("mkv", "ffv1", "yuv444p16le", False),
     ("mkv", "ffv1", "gray16le", True)],
)  # fmt: skip
def test_black_gray_and_white_are_kept_in_every_range(tmp_path, suffix, codec, pix_fmt, full):
    low, span = (0, 255) if full else (16, 219)
    tags = {} if pix_fmt in ("gray", "gray16le", "bgr0") else {"color_range": 2 if full else 1}
    for level in (0, 128, 255):
        luma, chroma = low + level / 255 * span, 128
        if "16" in pix_fmt:
            luma, chroma = luma * (257 if full else 256), chroma * 256
        frame = planes([luma] if "gray" in pix_fmt else [luma, chroma, chroma], pix_fmt)
        if pix_fmt == "bgr0":
            frame = np.full((48, 64, 3), level, np.uint8)
        path = encode(tmp_path / f"a.{suffix}", codec, [frame] * 3, pix_fmt=pix_fmt, **tags)
        assert np.abs(first(path) - level).max() <= 3, level


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [("webm", "libvpx", "yuva420p"), ("webm", "libvpx-vp9", "yuva420p"), ("mov", "png", "rgba"),
     ("mov", "qtrle", "argb"), ("mov", "prores_ks", "yuva444p10le"), ("mkv", "ffv1", "bgra"),
     ("avi", "png", "rgba")],
)  # fmt: skip
def test_transparency_is_over_white(tmp_path, suffix, codec, pix_fmt):
    image = np.zeros((48, 64, 4), np.uint8)
    image[:, :32] = (255, 0, 0, 255)
    image[:, 48:] = (0, 0, 0, 128)
    path = tmp_path / f"a.{suffix}"
    options = {"auto-alt-ref": "0"} if suffix == "webm" else None
    encode(path, codec, [image] * 3, pix_fmt=pix_fmt, options=options)
    shown = first(path)
    assert np.abs(shown[24, 12] - (255, 0, 0)).max() <= 4
    assert np.abs(shown[24, 40] - 255).max() <= 4
    assert np.abs(shown[24, 60] - 127).max() <= 6


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_animated_transparency_is_over_white(tmp_path, suffix):
    images = []
    for number in range(3):
        image = np.zeros((48, 64, 4), np.uint8)
        image[:, 16 * number : 16 * number + 16] = (255, 0, 0, 255)
        image[:8, :, 3] = 128  # a soft edge: else a writer may store opaque rectangles only
        images.append(image)
    path = player_media.animation(tmp_path / f"a.{suffix}", images, 100, disposal=2)
    for number, frame in enumerate(playback.shown(path)):
        shown = np.asarray(frame.image()[0]).astype(int)
        assert np.abs(shown[24, 16 * number + 8] - (255, 0, 0)).max() <= 24, (number, shown[24])
        assert np.abs(shown[24, 16 * (number + 2) % 64 + 8] - 255).max() <= 24, (number, shown[24])
