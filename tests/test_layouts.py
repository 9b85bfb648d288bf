"""Every layout becomes the same records: images and videos, captions, splits, skipped items."""

import layouts
import pytest
from numbered_clips import read_number

from phenaki.data import tensorflow
from phenaki.data.prepare import run as prepare
from phenaki.errors import UserError
from phenaki.io.quiet import no_logs

Seen = tuple[int, str | None]  # first number shown, caption
# (part of its description, records by split, reasons of skipped items, reasons of problems)
EXPECTED = {
    "captions.csv": (
        "captions file",
        {"video_train": [(0, "video 0"), (20, "video 1"), (40, "video 2")]},
        {},
        [],
    ),
    "metadata.jsonl": (
        "metadata.jsonl",
        {"image_train": [(5, "an image")], "video_train": [(0, "a video")]},
        {},
        [],
    ),
    "captions.parquet": (
        "captions.parquet",
        {"video_train": [(0, "a video")]},
        {},
        ["no such file"],
    ),
    "split folders": (
        "test/metadata.csv, train/metadata.csv",
        {"video_train": [(0, "a train video")], "video_validation": [(60, "a test video")]},
        {},
        [],
    ),
    "sidecars": ("next to each file", {"image_train": [(0, "image 0")]}, {"nsfw": 1}, []),
    "class folders": (
        "folder names",
        {"video_train": [(30, "adult female singing"), (0, "brushing teeth")]},
        {},
        [],
    ),
    "WebVid": (
        "WebVid",
        {
            "video_train": [(0, "Waves on a beach"), (40, 'Aerial "shot", winter')],
            "video_validation": [(80, "A cat")],
        },
        {},
        ["no such file"],
    ),
    "Kinetics": (
        "Kinetics",
        {
            "video_train": [(30, "eating spaghetti"), (0, "testifying")],
            "video_validation": [(60, "archery")],
        },
        {},
        ["no such file"],
    ),
    "Moments in Time": (
        "Moments in Time",
        {
            "video_train": [(0, "adult female singing"), (20, "boiling")],
            "video_validation": [(60, "boiling")],
        },
        {},
        [],
    ),
    "DAVIS": (
        "folders of frames",
        {"video_train": [(0, None)], "video_validation": [(40, None)]},
        {},
        [],
    ),
    "img2dataset tar": (
        "tars",
        {"image_train": [(0, "image 0"), (2, "image 2")]},
        {"nsfw": 1},
        [],
    ),
    "video2dataset tar": (
        "tars",
        {
            "image_train": [(9, "caption of 0000009_00000")],
            "video_train": [(0, "caption of 0000008_00001")],
        },
        {},
        [],
    ),
    "tfrecord": (
        "TFRecords of img2dataset",
        {"image_train": [(3, "an image")], "video_train": [(0, "a clip")]},
        {},
        [],
    ),
    "parquet": (
        "parquet with media",
        {"image_train": [(3, "an image")], "video_train": [(0, "a clip")]},
        {},
        [],
    ),
    "Hub parquet": (
        "parquet with media",
        {"image_train": [(3, "grey dog")], "image_validation": [(3, "grey dog")]},
        {},
        [],
    ),
    "DMVR": ("DMVR", {"video_train": [(0, "playing chess"), (50, "playing chess")]}, {}, []),
    "tfds bair_robot_pushing_small": (
        "TFDS bair",
        {"video_validation": [(100, None), (100, None)]},
        {},
        [],
    ),
    "tfds laion400m": (
        "TFDS laion400m",
        {"image_train": [(0, "image 0"), (1, "image 1")]},
        {"nsfw": 1},
        [],
    ),
    "tfds ucf101": ("TFDS ucf101", {}, {"too short": 1}, []),
    "tfds moving_mnist": ("TFDS moving_mnist", {"video_train": [(7, None)]}, {}, []),
    "tfds robonet": ("TFDS robonet", {"video_train": [(7, None)]}, {}, []),
    "tfds webvid": ("TFDS webvid", {}, {"too short": 1}, []),
}


def read(directory) -> dict[str, list[Seen]]:
    with no_logs():
        data = tensorflow.datasets().builder_from_directory(str(directory))
        splits = {
            split: tensorflow.datasets().as_numpy(data.as_dataset(split=split, shuffle_files=False))
            for split in data.info.splits
        }
        return {
            split: [
                (read_number(e["video"][0]), e["caption"].decode() if e["captioned"] else None)
                for e in examples
            ]
            for split, examples in splits.items()
        }


def run(source, output, **changes) -> dict:
    size = dict(height=48, width=64, validation=0.0, encoding="png")
    return prepare.prepare(prepare.PrepareOptions(input=source, output=output, **(size | changes)))


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_layout_becomes_records(name, tmp_path):
    layout, records, reasons, problems = EXPECTED[name]
    source = layouts.make(name, tmp_path / "in")
    if not records:
        with pytest.raises(UserError, match=next(iter(reasons))):
            run(source, tmp_path / "set")
        report = run(source, tmp_path / "set", fps=25.0 if "ucf" in name else 30.0)
        reasons, records = (
            {},
            {"video_train": [(7, "apply eye makeup" if "ucf" in name else "a video")]},
        )
    else:
        report = run(source, tmp_path / "set")
    assert layout in report["captions"]
    assert read(tmp_path / "set") == records
    assert report["reasons"] == reasons
    assert len(report["problems"]) == len(problems)
    for problem, reason in zip(report["problems"], problems, strict=True):
        assert reason in problem["reason"]
