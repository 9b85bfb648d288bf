"""Files that open everywhere and show what was given: colours, rates, sizes, errors."""

from fractions import Fraction
from pathlib import Path

import av
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from phenaki.io import media, outputs, sample_files
from phenaki.io.contact_sheet import contact_sheet

COLOURS = np.array(
    [
        [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255],
        [255, 255, 255], [0, 0, 0], [128, 128, 128], [255, 128, 0], [20, 60, 200], [90, 30, 10],
    ],
    np.uint8,
)  # fmt: skip


def patches(frames: int = 3, side: int = 16) -> np.ndarray:
    """Saturated squares in a row; a clip that also changes over time."""
    row = np.repeat(np.repeat(COLOURS[None], side, 0), side, 1)
    return np.stack([np.roll(row, index * side, axis=1) for index in range(frames)])


def moving(frames: int, height: int, width: int) -> np.ndarray:
    """A bright column that travels, so that no two frames are equal."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    for index in range(frames):
        video[index, :, index % width] = 255
        video[index, 0, 0] = index
    return video


def read_mp4(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def planes_to_rgb(path) -> np.ndarray:
    """The first frame converted by the equations of BT.709, limited range; no library's tags."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        packed = frame.to_ndarray(format="yuv420p").astype(float)
    height, width = frame.height, frame.width
    luma = (packed[:height] - 16) / 219
    halves = packed[height:].reshape(2, height // 2, width // 2)
    blue, red = (halves.repeat(2, 1).repeat(2, 2) - 128) / 224
    rgb = [luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue]
    return np.stack(rgb, -1) * 255


def test_mp4_keeps_colours(tmp_path):
    video = patches()
    media.write_mp4(tmp_path / "a.mp4", video, fps=8)
    decoded = read_mp4(tmp_path / "a.mp4")
    centres = np.s_[:, 8, 8::16]
    assert np.abs(decoded[centres].astype(int) - video[centres]).max() <= 4
    by_equation = planes_to_rgb(tmp_path / "a.mp4")
    assert np.abs(by_equation[8, 8::16] - video[0, 8, 8::16]).max() <= 4


def test_mp4_says_what_it_is(tmp_path):
    media.write_mp4(tmp_path / "a.mp4", patches(), fps=8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.color_primaries, context.color_trc, context.colorspace) == (1, 1, 1)
        assert context.color_range == 1
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is fully loaded


@pytest.mark.parametrize("fps", [8, 7.5, 30000 / 1001])
@pytest.mark.parametrize("frames", [1, 11])
def test_mp4_keeps_rate_and_count(tmp_path, fps, frames):
    media.write_mp4(tmp_path / "a.mp4", moving(frames, 16, 16), fps=fps)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert len(list(container.decode(stream))) == stream.frames == frames
        assert stream.average_rate == rate
        assert stream.start_time == 0
        assert float(stream.duration * stream.time_base) == pytest.approx(frames / rate)


def test_mp4_pads_odd_sizes_to_even_ones(tmp_path):
    video = np.full((2, 17, 21, 3), (200, 40, 90), np.uint8)
    media.write_mp4(tmp_path / "a.mp4", video, fps=8)
    decoded = read_mp4(tmp_path / "a.mp4")
    assert decoded.shape == (2, 18, 22, 3)
    assert np.abs(decoded.astype(int) - video[0, 0, 0]).max() <= 4


def test_scale_makes_squares_of_pixels(tmp_path):
    video = patches(side=1)
    media.write_mp4(tmp_path / "a.mp4", video, fps=8, scale=16)
    decoded = read_mp4(tmp_path / "a.mp4")
    assert decoded.shape == (3, 16, 16 * len(COLOURS), 3)
    assert np.abs(decoded[:, 8, 8::16].astype(int) - video[:, 0]).max() <= 4
    assert media.scale_to_see(16, 32, side=256) == 8
    assert media.scale_to_see(512, 512) == 1


def test_floats_and_bytes_give_the_same_file(tmp_path):
    video = patches()
    media.write_mp4(tmp_path / "bytes.mp4", video, fps=8)
    media.write_mp4(tmp_path / "floats.mp4", jnp.asarray(video) / 255, fps=8)
    assert (tmp_path / "bytes.mp4").read_bytes() == (tmp_path / "floats.mp4").read_bytes()
    white = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    assert (media.as_uint8(white) == 255).all()


def test_writer_takes_a_story_in_pieces(tmp_path):
    video = moving(17, 16, 16)
    media.write_mp4(tmp_path / "whole.mp4", video, fps=8)
    with media.Mp4Writer(tmp_path / "pieces.mp4", fps=8) as writer:
        for start, stop in ((0, 11), (11, 17)):
            writer.append(video[start:stop])
    assert writer.frames == 17
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "pieces.mp4").read_bytes()


def test_a_failure_leaves_no_file_behind(tmp_path):
    with pytest.raises(RuntimeError), media.Mp4Writer(tmp_path / "a.mp4", fps=8) as writer:
        writer.append(patches())
        raise RuntimeError
    with pytest.raises(ValueError, match="no frame"), media.Mp4Writer(tmp_path / "a.mp4", fps=8):
        pass
    assert not list(tmp_path.iterdir())


def test_writer_refuses_another_size(tmp_path):
    with (
        pytest.raises(ValueError, match=r"\(8, 8\) must be \(16, 192\)"),
        media.Mp4Writer(tmp_path / "a.mp4", fps=8) as writer,
    ):
        writer.append(patches())
        writer.append(np.zeros((1, 8, 8, 3), np.uint8))


def read_gif(path) -> tuple[np.ndarray, list[int]]:
    with Image.open(path) as gif:
        frames, durations = [], []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB")))
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    return np.stack(frames), durations


def test_gif_keeps_colours_count_and_time(tmp_path):
    video = patches(frames=11)
    media.write_gif(tmp_path / "a.gif", video, fps=8, scale=2)
    decoded, durations = read_gif(tmp_path / "a.gif")
    np.testing.assert_array_equal(decoded, media.enlarge(video, 2))
    assert len(durations) == 11
    assert sum(durations) == 1380  # 11 / 8 s in steps of 10 ms, where 11 x 120 would run fast
    assert set(durations) == {120, 130}


def test_gif_does_not_flicker(tmp_path):
    generator = np.random.default_rng(0)
    video = np.repeat(generator.integers(0, 256, (1, 48, 48, 3), np.uint8), 4, axis=0)
    video[:, 10:20, 10:20] = generator.integers(0, 256, (4, 10, 10, 3), np.uint8)
    media.write_gif(tmp_path / "a.gif", video, fps=8)
    decoded, _ = read_gif(tmp_path / "a.gif")
    still = np.ones((48, 48), bool)
    still[10:20, 10:20] = False
    assert (decoded[:, still] == decoded[:1, still]).all()
    assert np.abs(decoded.astype(int) - video).mean() < 16


def test_gif_keeps_a_rare_colour(tmp_path):
    shades = np.arange(256, dtype=np.uint8)
    image = np.stack([shades, shades, shades], -1)[None].repeat(64, axis=0)
    image[:, :, 2] = np.arange(64)[:, None]
    image[:2, :2] = (255, 0, 0)
    media.write_gif(tmp_path / "a.gif", image[None], fps=8)
    decoded, _ = read_gif(tmp_path / "a.gif")
    assert np.abs(decoded[0, 0, 0].astype(int) - (255, 0, 0)).max() < 32


def test_sheet_has_a_row_per_clip_under_its_caption():
    colour = (80, 10, 160)
    videos = [np.full((frames, 16, 16, 3), colour, np.uint8) for frames in (11, 1)]
    sheet = contact_sheet(videos, ["a purple square " * 20, None], frames=4, scale=3)
    strip = (sheet == colour).all(-1)
    assert strip.sum() == (4 + 1) * 48 * 48
    first = np.flatnonzero(strip.any(1))[0]
    assert (sheet[:first] < 64).any()  # the text


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((8, 8, 3)), r"shape \(8, 8, 3\) of a video must be \[f h w 3\]"),
        (np.zeros((2, 3, 8, 8)), r"shape \(2, 3, 8, 8\) of a video"),
        (np.zeros((0, 8, 8, 3)), r"no axis 0"),
        (np.full((1, 8, 8, 3), 255.0), r"from 255 to 255 must lie in \[0, 1\]"),
        (np.full((1, 8, 8, 3), -1.0), r"from -1 to -1 must lie in \[0, 1\]"),
        (np.full((1, 8, 8, 3), np.nan), r"from nan to nan must lie in \[0, 1\]"),
        (np.zeros((1, 8, 8, 3), np.int32), r"dtype int32 of a video must be uint8"),
    ],
)
def test_wrong_videos_are_named(tmp_path, video, message):
    for write in (media.write_mp4, media.write_gif):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "a", video, fps=8)
    assert not list(tmp_path.iterdir())


def test_wrong_numbers_are_named(tmp_path):
    with pytest.raises(ValueError, match="fps=0 must"):
        media.write_mp4(tmp_path / "a.mp4", patches(), fps=0)
    with pytest.raises(ValueError, match="fps=60 of a gif"):
        media.write_gif(tmp_path / "a.gif", patches(), fps=60)
    with pytest.raises(ValueError, match="scale=0 must"):
        media.write_png(tmp_path / "a.png", patches()[0], scale=0)
    with pytest.raises(ValueError, match="1 videos and 2 captions"):
        contact_sheet([patches()], ["a", "b"])


@pytest.mark.parametrize("name", ["missing/a", "."])
def test_an_unwritable_path_is_named(tmp_path, name):
    path = tmp_path / name
    for write in (media.write_mp4, media.write_gif):
        with pytest.raises(OSError, match="No such file|Is a directory") as error:
            write(path, patches(), fps=8)
        assert str(error.value.filename) == str(path)
    with pytest.raises(OSError, match="No such file|Is a directory") as error:
        media.write_png(path, patches()[0])
    assert str(error.value.filename) == str(path)


def test_mp4_has_chapters(tmp_path):
    chapters = [("a red circle", 0, 3), ("ein Würfel", 3, 7)]
    with media.Mp4Writer(tmp_path / "a.mp4", fps=8, chapters=chapters) as writer:
        writer.append(moving(7, 16, 16))
    with av.open(str(tmp_path / "a.mp4")) as container:
        found = container.chapters()
        assert len(list(container.decode(video=0))) == 7
    assert [chapter["metadata"]["title"] for chapter in found] == ["a red circle", "ein Würfel"]
    times = [chapter[side] * chapter["time_base"] for chapter in found for side in ("start", "end")]
    assert times == [0, Fraction(3, 8), Fraction(3, 8), Fraction(7, 8)]


@pytest.mark.parametrize("name", ["a:b.mp4", "file:x.mp4", "-x.mp4", "http:x.mp4", "c:d/x.mp4"])
def test_a_name_is_a_file_and_never_a_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("c:d").mkdir()
    media.write_mp4(name, np.zeros((2, 16, 16, 3)), 8)
    assert Path(name).stat().st_size > 500
    assert sorted(path.name for path in tmp_path.rglob("*.mp4")) == [Path(name).name]


# --- samples


def test_a_video_has_mp4_gif_and_sheet_and_an_image_is_an_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 12, 3), np.uint8)
    names = sample_files.write(tmp_path, [np.zeros((3, 8, 12, 3)), image], ["a", None], 8, 2)
    assert names == ["sample_0", "sample_1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        outputs.MARKER,
        *("sample_0.gif", "sample_0.mp4", "sample_0.png", "sample_1.png", "sample_1_sheet.png"),
    ]
    with Image.open(tmp_path / "sample_1.png") as file:
        np.testing.assert_array_equal(np.asarray(file), media.enlarge(image[0], 2))


def test_samples_are_numbered_on_from_those_of_earlier_calls_and_replace_nothing(tmp_path):
    video, image = np.zeros((3, 8, 8, 3)), np.zeros((1, 8, 8, 3))
    expected = {"story.mp4", "sample_x.mp4", "my_sample_90.mp4", "sample_7.mp4.bak"}
    for name in expected:
        (tmp_path / name).write_bytes(b"")
    first, before = 8, {}
    for call in ([video] * 3, [image], [video], [np.zeros((241, 8, 8, 3))]):
        numbers = range(first, first := first + len(call))
        names = sample_files.write(tmp_path, call, ["a"] * len(call), 8)
        assert names == [f"sample_{number}" for number in numbers]
        suffixes = [".gif", ".mp4", ".png"] if len(call[0]) > 1 else [".png", "_sheet.png"]
        suffixes = suffixes[1:] if len(call[0]) > 240 else suffixes
        expected |= {f"sample_{number}{suffix}" for number in numbers for suffix in suffixes}
        there = {path for path in tmp_path.iterdir() if path.name != outputs.MARKER}
        assert {path.name for path in there} == expected
        assert all(path.read_bytes() == content for path, content in before.items())
        before = {path: path.read_bytes() for path in there}
