"""Writes small inputs in every layout of `prepare_data.py`, with real containers and codecs."""

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numbered_clips import numbered, regular, write_video
from PIL import Image

from phenaki.data import tensorflow
from phenaki.io.quiet import no_logs

FRAMES = 11  # of a clip, at 8 a second


def video(path: Path, frames: int = FRAMES, first: int = 0) -> Path:
    """A video at 8 fps whose frames show first, first + 1, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".webm": "libvpx", ".avi": "mjpeg"}.get(path.suffix, "libx264")
    images = [numbered(first + index) for index in range(frames)]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return write_video(path, regular(frames, 8), images, codec=codec, pix_fmt=pix_fmt)


def image(number: int, suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(numbered(number)).save(buffer, suffix, quality=95)
    return buffer.getvalue()


def table(path: Path, header: str | None, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([header.split(",")] if header else [])
        writer.writerows(rows)


def captions_csv(root: Path) -> None:
    for index in range(3):
        video(root / f"{index}.mp4", first=20 * index)
    table(root / "captions.csv", "file,caption", [(f"{i}.mp4", f"video {i}") for i in range(3)])


def captions_jsonl(root: Path) -> None:
    video(root / "a.mkv")
    (root / "b.png").write_bytes(image(5))
    rows = [{"file_name": "a.mkv", "text": "a video"}, {"file_name": "b.png", "text": "an image"}]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def captions_parquet(root: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    video(root / "a.webm")
    columns = pyarrow.table({"file": ["a.webm", "gone.mp4"], "caption": ["a video", "nothing"]})
    parquet.write_table(columns, root / "captions.parquet")


def split_folders(root: Path) -> None:
    """As the Hub's folders of videos: a table in each split folder; here with several captions."""
    for split, first in {"train": 0, "test": 60}.items():
        video(root / split / "a.mp4", first=first)
        texts = json.dumps([f"a {split} video", "another caption"])
        table(root / split / "metadata.csv", "file_name,text", [("a.mp4", texts)])


def sidecars(root: Path) -> None:
    """As img2dataset writes "files": 00000/000000000.jpg, .txt and .json."""
    (root / "00000").mkdir()
    for index, flag in enumerate(("UNLIKELY", "NSFW")):
        name = root / "00000" / f"{index:09d}"
        name.with_suffix(".jpg").write_bytes(image(index, "JPEG"))
        name.with_suffix(".txt").write_text(f"image {index}")
        name.with_suffix(".json").write_text(json.dumps({"NSFW": flag, "status": "success"}))


def class_folders(root: Path) -> None:
    video(root / "brushing_teeth" / "a.mp4")
    video(root / "adult+female+singing" / "b.avi", first=30)


def webvid(root: Path) -> None:
    header = "videoid,name,page_idx,page_dir,duration,contentUrl"
    rows = [
        ("0066", "Waves on a beach", "0", "000001_000050", "PT00H00M17S", "u"),
        ("21179416", 'Aerial "shot", winter', "1", "000051_000100", "PT00H00M17S", "u"),
        ("99", "gone", "1", "000051_000100", "PT00H00M05S", "u"),
    ]
    table(root / "results_2M_train.csv", header, rows)
    video(root / "videos/000001_000050/0066.mp4")
    video(root / "videos/000051_000100/21179416.mp4", first=40)
    table(root / "results_2M_val.csv", header, [("7", "A cat", "0", "000001_000050", "x", "u")])
    video(root / "videos/000001_000050/7.mp4", first=80)


def kinetics(root: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split"
    rows = [
        ("testifying", "---QUuC4vJs", "84", "94", "train"),
        ("eating spaghetti", "--3ouPhoy2A", "20", "30", "train"),
        ("gone", "-0000000000", "1", "11", "train"),
    ]
    table(root / "train.csv", header, rows)
    table(root / "validate.csv", header, [("archery", "-0LwUl5BT1g", "5", "15", "validate")])
    video(root / "train/testifying/---QUuC4vJs_000084_000094.mp4")
    video(root / "train/eating spaghetti/--3ouPhoy2A_000020_000030.mp4", first=30)
    video(root / "val/archery/-0LwUl5BT1g_000005_000015.mp4", first=60)


def moments(root: Path) -> None:
    names = ["adult+female+singing/yt-a_1.mp4", "boiling/yt-b_2.mp4"]
    for index, name in enumerate(names):
        video(root / "training" / name, first=20 * index)
    video(root / "validation/boiling/yt-c_3.mp4", first=60)
    table(root / "trainingSet.csv", None, [(name, name.split("/")[0], 4, 0) for name in names])
    table(root / "validationSet.csv", None, [("boiling/yt-c_3.mp4", "boiling", 3, 1)])
    table(root / "moments_categories.txt", None, [("adult+female+singing", 0), ("boiling", 1)])


def davis(root: Path) -> None:
    for name, first in {"bear": 0, "bmx-trees": 40}.items():
        for sort, suffix in {"JPEGImages": "jpg", "Annotations": "png"}.items():
            folder = root / sort / "480p" / name
            folder.mkdir(parents=True)
            for index in range(FRAMES + 1):
                content = image(first + index, "JPEG" if suffix == "jpg" else "PNG")
                (folder / f"{index:05d}.{suffix}").write_bytes(content)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("bear\n")
    (root / "ImageSets/2017/val.txt").write_text("bmx-trees\n")


def write_tar(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """Members by name: bytes, or a header of its own (a link, a device)."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def img2dataset_tar(root: Path) -> None:
    members = {}
    for index, flag in enumerate(("UNLIKELY", "NSFW", "UNTAGGED")):
        members[f"{index:09d}.jpg"] = image(index, "JPEG")
        members[f"{index:09d}.txt"] = f"image {index}".encode()
        members[f"{index:09d}.json"] = json.dumps({"NSFW": flag}).encode()
    write_tar(root / "00000.tar", members)
    (root / "00000_stats.json").write_text("{}")


def video2dataset_tar(root: Path) -> None:
    """Clips, and an image as a video of one frame, as its image reader writes them."""
    clip = video(root / "clip.mp4").read_bytes()
    single = write_video(root / "single.mp4", [0], [numbered(9)], "mjpeg", "yuvj420p").read_bytes()
    (root / "clip.mp4").unlink(), (root / "single.mp4").unlink()
    members = {}
    for key, content in {"0000008_00001": clip, "0000009_00000": single}.items():
        members[f"{key}.mp4"] = content
        members[f"{key}.txt"] = f"caption of {key}".encode()
        members[f"{key}.json"] = b'{"fps": 8}'
    write_tar(root / "00000.tar", members)


def _stored(root: Path) -> list[dict]:
    clip = video(root / "clip.mp4").read_bytes()
    (root / "clip.mp4").unlink()
    return [
        {"key": "000000000", "jpg": image(3, "JPEG"), "txt": "an image", "NSFW": "UNLIKELY"},
        {"key": "000000001", "mp4": clip, "txt": "a clip", "NSFW": None},
    ]


def example_tfrecord(root: Path) -> None:
    tf = tensorflow.tensorflow()
    with tf.io.TFRecordWriter(str(root / "00000.tfrecord")) as file:
        for row in _stored(root):
            example = tf.train.Example()
            for name, value in row.items():
                value = value.encode() if isinstance(value, str) else value
                example.features.feature[name].bytes_list.value.extend(
                    [value] * (value is not None)
                )
            file.write(example.SerializeToString())


def media_parquet(root: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"jpg": None, "mp4": None} | row for row in _stored(root)]
    for row in rows:
        row["caption"] = row.pop("txt")
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "00000.parquet")


def hub_parquet(root: Path) -> None:
    """As the Hub converts data sets: images as structs, labels with their names."""
    import pyarrow
    from pyarrow import parquet

    rows = [{"image": {"bytes": image(3, "JPEG"), "path": "a.jpg"}, "label": 1}]
    labels = {"label": {"names": ["Cat", "GreyDog"], "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": labels}})}
    (root / "data").mkdir()
    for name in ("train", "test"):
        columns = pyarrow.Table.from_pylist(rows).replace_schema_metadata(about)
        parquet.write_table(columns, root / "data" / f"{name}-00000-of-00001.parquet")


def dmvr(root: Path) -> None:
    tf = tensorflow.tensorflow()
    with tf.io.TFRecordWriter(str(root / "train-00000-of-00001.tfrecord")) as file:
        for first in (0, 50):
            example = tf.train.SequenceExample()
            frames = example.feature_lists.feature_list["image/encoded"]
            for index in range(2 * FRAMES):  # 16 fps by the time stamps
                frames.feature.add().bytes_list.value.append(image(first + index, "JPEG"))
            context = example.context.feature
            context["clip/label/text"].bytes_list.value.append(b"playing_chess")
            context["clip/start/timestamp"].int64_list.value.append(1_000_000)
            context["clip/end/timestamp"].int64_list.value.append(1_000_000 + 62_500 * 2 * FRAMES)
            file.write(example.SerializeToString())


def write_tfds(root: Path, name: str, features, examples: list[dict], split: str = "train") -> Path:
    """A data set as its builder writes it below `root`."""
    tfds = tensorflow.datasets()
    directory = root / name / "1.0.0"
    directory.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=str(directory), module_name="m"
    )
    with no_logs():
        info = tfds.core.DatasetInfo(builder=identity, features=features)
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
        writer.initialize_splits([split])
        writer.add_examples({split: examples})
        writer.close_all()
    return directory


def _frames(first: int, channels: int = 3) -> np.ndarray:
    return np.stack([numbered(first + index) for index in range(FRAMES)])[..., :channels]


def bair(root: Path) -> None:
    features = tensorflow.datasets().features
    camera = features.Image(shape=(48, 64, 3))
    action = features.Tensor(shape=(4,), dtype=np.float32)
    steps = features.Sequence(
        {"image_main": camera, "image_aux1": camera, "action": action}, length=FRAMES
    )
    shown = {"image_main": _frames(0), "image_aux1": _frames(100)}
    example = shown | {"action": np.zeros((FRAMES, 4), np.float32)}
    step = [{name: values[index] for name, values in example.items()} for index in range(FRAMES)]
    write_tfds(root, "bair_robot_pushing_small", steps, [step] * 2, "test")


def laion(root: Path) -> None:
    features = tensorflow.datasets().features
    names = ["UNLIKELY", "UNSURE", "NSFW", "UNTAGGED"]
    dictionary = features.FeaturesDict(
        {
            "image": features.Image(),
            "caption": features.Text(),
            "nsfw": features.ClassLabel(names=names),
        }
    )
    examples = [{"image": numbered(n), "caption": f"image {n}", "nsfw": names[n]} for n in range(3)]
    write_tfds(root, "laion400m", dictionary, examples)


def _tfds_video(name: str, extra: Mapping[str, object], field: str = "video", channels: int = 3):
    def write(root: Path) -> None:
        features = tensorflow.datasets().features
        shape = (None, 48, 64, channels)
        shown = {field: features.Video(shape=shape, encoding_format="png")}
        kinds = {"label": features.ClassLabel(names=["ApplyEyeMakeup"]), "caption": features.Text()}
        dictionary = features.FeaturesDict(shown | {key: kinds[key] for key in extra})
        write_tfds(root, name, dictionary, [{field: _frames(7, channels)} | extra])

    return write


# Layout -> its writer.
LAYOUTS: dict[str, Callable[[Path], None]] = {
    "captions.csv": captions_csv,
    "metadata.jsonl": captions_jsonl,
    "captions.parquet": captions_parquet,
    "split folders": split_folders,
    "sidecars": sidecars,
    "class folders": class_folders,
    "WebVid": webvid,
    "Kinetics": kinetics,
    "Moments in Time": moments,
    "DAVIS": davis,
    "img2dataset tar": img2dataset_tar,
    "video2dataset tar": video2dataset_tar,
    "tfrecord": example_tfrecord,
    "parquet": media_parquet,
    "Hub parquet": hub_parquet,
    "DMVR": dmvr,
    "tfds bair_robot_pushing_small": bair,
    "tfds laion400m": laion,
    "tfds ucf101": _tfds_video("ucf101", {"label": "ApplyEyeMakeup"}),
    "tfds moving_mnist": _tfds_video("moving_mnist", {}, "image_sequence", 1),
    "tfds robonet": _tfds_video("robonet", {}),
    "tfds webvid": _tfds_video("webvid", {"caption": "a video"}),
}


def make(name: str, root: Path) -> Path:
    """Writes a layout below `root` and returns what --input gets."""
    root.mkdir(parents=True, exist_ok=True)
    LAYOUTS[name](root)
    sets = [path.parent for path in root.glob("*/*/features.json")]
    return Path(os.fspath(sets[0])) if sets else root
