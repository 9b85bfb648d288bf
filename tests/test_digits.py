"""Moving digits: what the clips show, what the reader reads of them, and the two commands."""

import csv

import numpy as np
import pytest
import script_calls
import tiny

from experiments import digits
from phenaki.errors import UserError


@pytest.fixture(scope="module")
def reader():
    return digits.Reader()


@pytest.fixture(scope="module")
def clips():
    images, labels = digits.load()
    images, labels = images[: digits.FOR_CLIPS], labels[: digits.FOR_CLIPS]
    random = np.random.default_rng(0)
    return [digits.clip(random, images, labels) for _ in range(150)]


def shown(clip):
    return np.repeat(clip.video[..., None], 3, -1) / 255


def test_a_caption_says_what_the_clip_shows(clips):
    captions = {clip.caption for clip in clips}
    assert {caption.split()[0] for caption in captions if "eight" in caption} == {"an"}
    assert all(len(caption.split()) == 4 for caption in captions)
    for clip in clips[:20]:
        first, last = (np.argwhere(clip.video[index]).mean(0) for index in (0, -1))
        assert last - first == pytest.approx(10 * np.array(digits.DIRECTIONS[clip.direction]))


def test_the_reader_reads_digits_of_writers_that_it_has_not_seen(reader, clips):
    reads = [reader.read(shown(clip)) for clip in clips]
    found = digits.scores(reads, [clip.caption for clip in clips])
    assert found["asked"] >= 0.94 * len(clips)
    assert (found["same"], found["direction"]) == (len(clips), len(clips))
    assert found["asked and same"] == found["asked"]


def test_another_digit_direction_or_an_unsteady_one_is_counted_as_such(reader, clips):
    one, other = next(
        (a, b) for a in clips for b in clips
        if a.digit != b.digit and reader.read(shown(a)).digit == a.digit
        and reader.read(shown(b)).digit == b.digit
    )  # fmt: skip
    changed = np.concatenate([shown(one)[:9], shown(other)[9:]])  # two of eleven frames differ
    read = reader.read(changed)
    assert (read.digit, read.same) == (one.digit, False)
    nearly = reader.read(np.concatenate([shown(one)[:10], shown(other)[10:]]))
    assert (nearly.digit, nearly.same) == (one.digit, True)
    backwards = reader.read(shown(one)[::-1])
    assert digits.DIRECTIONS[backwards.direction] == tuple(
        -step for step in digits.DIRECTIONS[one.direction]
    )
    none = digits.scores([read], [other.caption])
    assert (none["asked"], none["asked and same"]) == (0, 0)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_empty_frames_show_no_digit(reader, value):
    read = reader.read(np.full((11, 32, 32, 3), value))
    assert (read.digit, read.same) == (digits.NONE, False)


def test_clips_are_written_with_captions_and_read_again(tmp_path, capsys):
    script_calls.call("experiments/make_digits.py", f"--output={tmp_path}/clips", "--count=3")
    with open(tmp_path / "clips/metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [f"0000{index}.mp4" for index in range(3)]
    assert all((tmp_path / "clips" / row["file_name"]).is_file() for row in rows)
    flags = [f"--clips={tmp_path}/clips", "--count=2"]
    script_calls.call("experiments/read_digits.py", *flags)
    *_, head, line, real = capsys.readouterr().out.splitlines()
    assert head == "| | asked | same | asked and same | direction |"
    assert real.startswith("| real clips | 100.0 (34.2-100.0) | "), line
    script_calls.call("experiments/make_digits.py", f"--output={tmp_path}/clips", "--count=2")
    assert sorted(path.name for path in (tmp_path / "clips").glob("*.*4")) == [
        "00000.mp4", "00001.mp4",
    ]  # fmt: skip


@pytest.mark.slow
def test_reconstructions_and_samples_of_a_model_are_read(tmp_path, capsys):
    script_calls.call("experiments/make_digits.py", f"--output={tmp_path}/clips", "--count=2")
    config = tiny.whole_config(video=dict(height=32, width=32), tokenizer=dict(patch=(2, 16, 16)))
    tiny.of_config(config).save(tmp_path / "model")
    flags = [f"--clips={tmp_path}/clips", f"--model={tmp_path}/model"]
    script_calls.call("experiments/read_digits.py", *flags)
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| real clips", "| reconstructions", "| samples",
    ]  # fmt: skip


def test_a_folder_without_clips_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no metadata.csv; experiments/make_digits.py makes"):
        script_calls.call("experiments/read_digits.py", f"--clips={tmp_path}")
