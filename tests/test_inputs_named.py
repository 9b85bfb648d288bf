"""Splits, links, tars and parquet as people have them; every file is read or named."""

import io
import json
import os

import annotations
import layouts
import numpy as np
import pytest
from PIL import Image

from phenaki.data.prepare import img2dataset, items, report
from phenaki.data.prepare.items import RawItem, Skipped
from phenaki.data.prepare.layouts import find, tars, walk
from phenaki.errors import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root, **changes):
    found = find.find(root, **changes)
    return found, {item.key: (item.split, item.captions) for item in found}


# --- splits


def test_each_split_folder_may_have_a_table_of_its_own(tmp_path):
    touch(tmp_path, "train/0.mp4", "train/1.mp4", "test/0.mp4")
    (tmp_path / "train/metadata.csv").write_text("file_name,text\n0.mp4,a\n1.mp4,b\n")
    (tmp_path / "test/metadata.csv").write_text("file_name,text\n0.mp4,c\n")
    found, seen = listed(tmp_path)
    assert seen == {
        "test/0.mp4": ("validation", ("c",)),
        "train/0.mp4": ("train", ("a",)),
        "train/1.mp4": ("train", ("b",)),
    }
    assert found.notes == (
        "splits from the folders test, train; --nosource_splits assigns files by --validation",
    )


def test_class_folders_lie_below_split_folders(tmp_path):
    touch(tmp_path, "v1/train/ApplyEyeMakeup/a.mp4", "v1/val/Archery/b.mp4")
    found, seen = listed(tmp_path, template="a video of {}")
    assert seen == {
        "v1/train/ApplyEyeMakeup/a.mp4": ("train", ("a video of apply eye makeup",)),
        "v1/val/Archery/b.mp4": ("validation", ("a video of archery",)),
    }
    assert found.classes and any("--layout=frames" in note for note in found.notes)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train/a.mp4", "test/b.mp4"), {"train": "train", "test": "validation"}),
        (("x/train2017/a.jpg", "x/val/b.jpg"), {"x/train2017": "train", "x/val": "validation"}),
        (("train/cat/a.mp4", "train/dog/b.mp4"), {"train": "train"}),
        (("train/a.mp4", "boat/b.mp4"), {}),  # vehicles
        (("train/a.mp4", "test/b.mp4", "extra/c.mp4"), {"train": "train", "test": "validation"}),
        (("a.mp4", "b/c.mp4"), {}),
        ((), {}),
        (
            ("training_set/cats/a.jpg", "test_set/dogs/b.jpg"),
            {"training_set": "train", "test_set": "validation"},
        ),
        (
            ("videos_train/a.mp4", "videos_val/b.mp4"),
            {"videos_train": "train", "videos_val": "validation"},
        ),
        (("train station/a.mp4", "test tube/b.mp4"), {}),  # classes
        (("cat/train/a.jpg", "dog/b.jpg", "dog/test/c.jpg"), {}),
    ],
)  # fmt: skip
def test_folders_are_splits_only_where_they_divide_the_files(names, expected):
    assert walk.split_folders(names) == expected


def test_class_folders_lie_above_split_folders(tmp_path):
    touch(tmp_path, "Boats/train/a.mp4", "Boats/test/b.mp4", "Cars/train/c.mp4", "Cars/test/d.mp4")
    _, seen = listed(tmp_path)
    assert seen == {
        "Boats/test/b.mp4": ("validation", ("boats",)),
        "Boats/train/a.mp4": ("train", ("boats",)),
        "Cars/test/d.mp4": ("validation", ("cars",)),
        "Cars/train/c.mp4": ("train", ("cars",)),
    }


def test_split_folders_without_classes_give_no_captions(tmp_path):
    touch(tmp_path, "train/a.mp4", "test/b.mp4")
    found, seen = listed(tmp_path)
    assert found.layout == "no captions"
    assert seen == {"test/b.mp4": ("validation", ()), "train/a.mp4": ("train", ())}


def test_a_column_or_the_name_of_a_table_gives_the_split(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "train.csv").write_text("file,caption\na.mp4,x\n")
    (tmp_path / "val.csv").write_text("file,caption\nb.mp4,y\n")
    (tmp_path / "other.csv").write_text("name,size\nz,3\n")
    found, seen = listed(tmp_path)
    assert seen == {
        "a.mp4": ("train", ("x",)),
        "b.mp4": ("validation", ("y",)),
        "c.mp4": (None, ()),
    }
    assert found.layout == "captions files train.csv, val.csv"
    (tmp_path / "captions.csv").write_text("file,caption,split\nc.mp4,z,test\n")
    assert listed(tmp_path)[1]["c.mp4"] == ("validation", ("z",))


def test_frame_10_follows_frame_9(tmp_path):
    touch(tmp_path, *(f"train/v/frame{n}.png" for n in range(1, 13)), "val/v/frame1.png")
    (tmp_path / "captions.csv").write_text("file,caption\ntrain/v,a\ntrain/v,b\ngone,c\n")
    found, seen = listed(tmp_path, layout="frames")
    assert seen["train/v"] == ("train", ("a", "b")) and seen["val/v"][0] == "validation"
    frames = next(item for item in found if item.key == "train/v").media.images
    assert [path.stem for path in frames] == [f"frame{n}" for n in range(1, 13)]
    assert found.problems == (Skipped("gone", "captions.csv:4: no such folder of images"),)


# --- links


def test_links_are_read_or_named(tmp_path):
    root = tmp_path / "in"
    touch(root, "a.mp4", ".hidden/b.mp4", "._a.mp4")
    touch(tmp_path, "far/c.mp4", "far.mp4")
    links = {
        "there.mp4": root / "a.mp4",
        "hidden.mp4": root / ".hidden/b.mp4",
        "far.mp4": tmp_path / "far.mp4",
        "gone.mp4": root / "nothing.mp4",
        "folder": tmp_path / "far",
        "inside": root / ".hidden",
        "loop": root,
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.mp4")
    found, seen = listed(root)
    assert sorted(seen) == ["a.mp4", "hidden.mp4", "there.mp4"]
    reasons = {skipped.name: skipped.reason for skipped in (*found.problems, *found.unused)}
    assert set(reasons) == {"far.mp4", "gone.mp4", "folder", "inside", "loop", "pipe.mp4"} | {
        ".hidden", "._a.mp4",
    }  # fmt: skip
    assert reasons["far.mp4"] == "a link to outside the folder"
    assert reasons["gone.mp4"] == "a link to a file that does not exist"
    assert all("not followed" in reasons[name] for name in ("folder", "inside", "loop"))


def test_a_snapshot_of_the_hubs_cache_is_links_to_its_blobs(tmp_path):
    cache = tmp_path / "hub" / "datasets--me--clips"
    touch(cache, "blobs/0a", "blobs/0b")
    touch(tmp_path, "secret.mp4")
    (cache / "blobs/0c").write_text("file_name,text\na.mp4,a clip\n")
    snapshot = cache / "snapshots" / "4f2e"
    (snapshot / "train").mkdir(parents=True)
    for name, blob in {
        "train/a.mp4": "0a",
        "train/b.mp4": "0b",
        "train/metadata.csv": "0c",
    }.items():
        (snapshot / name).symlink_to(f"../../../blobs/{blob}")
    (snapshot / "train/secret.mp4").symlink_to(tmp_path / "secret.mp4")
    (snapshot / "train/gone.mp4").symlink_to("../../../blobs/0d")
    found, seen = listed(snapshot)
    assert seen == {"train/a.mp4": ("train", ("a clip",)), "train/b.mp4": ("train", ())}
    assert {skipped.name: skipped.reason for skipped in found.problems} == {
        "train/gone.mp4": "a link to a file that does not exist",
        "train/secret.mp4": "a link to outside the folder",
    }
    assert listed(snapshot / "train")[1] == {"a.mp4": (None, ("a clip",)), "b.mp4": (None, ())}
    found, seen = listed(cache)  # all of it: each file once
    assert [key.rpartition("/")[2] for key in seen] == ["a.mp4", "b.mp4"]
    assert Skipped(
        "blobs", "files of the Hub's cache, which are read by their names in snapshots"
    ) in (found.unused)


# --- tars


IMAGE = layouts.image(3, "JPEG")


def members(tmp_path, files):
    path = layouts.write_tar(tmp_path / "train-0000.tar", files)
    found = list(tars.members(path, "t"))
    read = {item.key[2:]: item.captions for item in found if isinstance(item, RawItem)}
    return read, {item.name[2:]: item.reason for item in found if isinstance(item, Skipped)}


def test_keys_with_dots_are_keys(tmp_path):
    files = {}
    keys = ("22.05", "22.06", "22", "v1.0/a", "plain")
    for key in keys:
        files |= {f"{key}.jpg": IMAGE, f"{key}.txt": f"of {key}".encode()}
    files |= {"22.07.jpg": IMAGE, "22.08.txt": b"its image is missing"}
    read, named = members(tmp_path, files | {"5.1.jpg": IMAGE})
    assert read.pop("5.1.jpg") == ()
    assert read == {f"{key}.jpg": (f"of {key}",) for key in keys}
    assert named == {
        "22.07.jpg": "second image or video of 22",
        "22.08": "only .txt: no image or video",
        "5.1.jpg": "no .txt or .json: no caption",
    }


def test_second_images_of_a_sample_are_named(tmp_path):
    files = {
        "a.jpg": IMAGE, "a.txt": b"of a", "a.mask.png": IMAGE, "a.npy": b"", "b.npy": b"",
        "b.0.jpg": IMAGE, "b.1.jpg": IMAGE, "b.json": b'["of b", "again"]',
        "c.image.jpg": IMAGE, "c.caption.txt": b"of c", "._a.jpg": b"", "notes": b"",
    }  # fmt: skip
    read, named = members(tmp_path, files)
    assert read == {"a.jpg": ("of a",), "b.0.jpg": ("of b", "again"), "c.image.jpg": ("of c",)}
    assert named == {
        "a.mask.png": "second image or video of a",
        "b.1.jpg": "second image or video of b",
        "*.npy": "neither image, video nor caption: 2 files",
        "._a.jpg": "a hidden file, or a name without a suffix",
        "notes": "a hidden file, or a name without a suffix",
    }


def test_names_of_containers_give_splits(tmp_path):
    for name in ("train-0000.tar", "val/0000.tar", "0000.tar", "latest.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        layouts.write_tar(tmp_path / name, {"a.jpg": IMAGE, "a.txt": b"x"})
    found, seen = listed(tmp_path)
    assert {key: split for key, (split, _) in seen.items()} == {
        "0000.tar/a.jpg": None,
        "latest.tar/a.jpg": None,
        "train-0000.tar/a.jpg": "train",
        "val/0000.tar/a.jpg": "validation",
    }
    assert "--nosource_splits" in found.notes[0]


# --- parquet


def parquet(path, columns, labels=None):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(columns)
    if labels:
        about = {"info": {"features": {"label": {"names": labels, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(table, path)


def of_struct(*rows):
    import pyarrow

    fields = [("bytes", pyarrow.binary()), ("path", pyarrow.string())]
    return pyarrow.array([dict(zip(("bytes", "path"), row, strict=True)) for row in rows],
                         pyarrow.struct(fields))  # fmt: skip


def test_parquet_of_the_hub(tmp_path):
    import pyarrow

    large = pyarrow.array([IMAGE], pyarrow.large_binary())
    texts = pyarrow.array([["a", "b"]])
    parquet(tmp_path / "data/train-00000-of-00002.parquet", {"jpg": large, "caption": texts})
    images = of_struct((IMAGE, "x.jpg"), (None, "far/y.jpg"), (IMAGE, None))
    both = {"image": images, "mask": images, "text": ["c", "d", "e"], "n": [1, 2, 3]}
    parquet(tmp_path / "data/test-00001-of-00002.parquet", both)
    found, seen = listed(tmp_path)
    test, train = "data/test-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"
    assert seen == {
        f"{test}/000000000.jpg": ("validation", ("c",)),
        f"{test}/000000002.image": ("validation", ("e",)),
        f"{train}/000000000.jpg": ("train", ("a", "b")),
    }
    assert found.notes[1] == "media from column image, not mask; --fields=media=NAME chooses"
    (skipped,) = [one for unit in found.units for one in unit if isinstance(one, Skipped)]
    assert skipped.reason == "its bytes are not in this file, only the path far/y.jpg"
    for name, reason in {"media": "no parquet file here", "caption": f"{test} has only"}.items():
        with pytest.raises(UserError, match=f"--fields={name}=img: {reason}"):
            find.find(tmp_path, fields={name: "img"})


def test_columns_of_parquet_by_content_and_classes(tmp_path):
    columns = {"content": [IMAGE, IMAGE], "label": [1, -1], "other": [b"no", b"media"]}
    parquet(tmp_path / "a.parquet", columns, ["Cat", "BigDog"])
    found, seen = listed(tmp_path, template="a photo of a {}")
    assert [captions for _, captions in seen.values()] == [("a photo of a big dog",), ()]
    assert found.classes and "classes, of column label; --fields=caption=NAME" in found.notes[0]
    parquet(tmp_path / "a.parquet", columns)
    found, _ = listed(tmp_path)
    assert found.notes == (
        "no column of captions (others: label, other); --fields=caption=NAME gives it",
    )


# --- images of img2dataset


def padded(image):
    square = Image.new("RGB", (max(image.size),) * 2, "white")
    square.paste(image, tuple((square.width - side) // 2 for side in image.size))
    return square


@pytest.mark.parametrize("turn", range(9))
def test_white_bars_are_cut_and_the_camera_is_held_upright(turn, tmp_path):
    upright = Image.new("RGB", (80, 60), "gray")
    upright.paste("red", (0, 0, 40, 30))
    inverse = {6: 8, 8: 6}.get(turn, turn)  # as the sensor sees it
    undo = img2dataset._UNDONE.get(inverse)
    sensor = upright if undo is None else upright.transpose(undo)
    width, height = sensor.size
    exif = json.dumps({"Image Orientation": img2dataset._NAMES[turn - 1]}) if turn else "{}"
    about = {"caption": "x", "original_width": width, "original_height": height, "exif": exif}
    buffer = io.BytesIO()
    padded(sensor).save(buffer, "PNG")
    files = {"a.png": buffer.getvalue(), "a.json": json.dumps(about).encode()}
    path = layouts.write_tar(tmp_path / "a.tar", files)
    (item,) = tars.members(path, "a.tar")
    with Image.open(items.open_media(item.media)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] > pixels.shape[0] and pixels.min(-1).max() < 200
    red = (pixels[..., 0] - pixels[..., 1]) > 100
    rows, columns = np.nonzero(red)
    assert red[2, 2] and red.mean() == pytest.approx(0.25, abs=0.02)
    assert (rows.max(), columns.max()) < (pixels.shape[0] / 2, pixels.shape[1] / 2)


def test_other_squares_and_damaged_files_stay_as_they_are():
    image = Image.new("RGB", (64, 64), "gray")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    for content in (buffer.getvalue(), buffer.getvalue()[:40], b"no image"):
        about = items.Padded(content, (400, 300), 1)
        assert items.open_media(about).read() == content


# --- every file is read or named


ODD = ("stray.zip", "notes.md", ".hidden.mp4", "dead.mp4")
# Images and videos in the containers of a layout.
INSIDE = {"img2dataset tar": 3, "tfds laion400m": 3} | dict.fromkeys(
    (
        "video2dataset tar",
        "tfrecord",
        "parquet",
        "Hub parquet",
        "DMVR",
        "tfds bair_robot_pushing_small",
    ),
    2,
)


def logged(found, path):
    """(items, names in the log) as `run.prepare` counts them, without decoding."""
    read = []
    with path.open("w") as log:
        counts = report.IngestReport(log)
        for one in found.unused:
            counts.unused(one)
        entries = [*found.problems, *(entry for unit in found.units for entry in unit)]
        for entry in entries:
            if isinstance(entry, Skipped):
                counts.problem(entry)
            else:
                read.append(entry)
    return read, [json.loads(line)["name"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", [*layouts.LAYOUTS, *annotations.ANNOTATIONS])
def test_every_file_is_read_or_named(name, tmp_path):
    root = tmp_path / "in"
    if name in annotations.ANNOTATIONS:
        annotations.ANNOTATIONS[name](root)
    else:
        root = layouts.make(name, root)

    def keys():
        found = (path for path in root.rglob("*") if not path.is_dir() or path.is_symlink())
        return {path.relative_to(root).as_posix() for path in found}

    texts = {key for key in keys() if key.endswith((".csv", ".tsv", ".txt", ".jsonl", ".json"))}
    touch(root, *ODD[:3], "more/extra.mp4")
    (root / "dead.mp4").symlink_to(root / "nothing.mp4")
    (root / "linked").symlink_to(tmp_path)
    found = find.find(root)
    entries, named = logged(found, tmp_path / "log")
    containers = [unit.container for unit in found.units if unit.container]
    media = [getattr(entry.media, "images", [entry.media]) for entry in entries]
    paths = containers or [path for images in media for path in images]
    read = {path.relative_to(root).as_posix() for path in paths}
    assert keys() - read - set(named) <= texts | {"captions.parquet"}
    assert {*ODD, "linked"} <= set(named) and "more/extra.mp4" in read | set(named)
    assert len(set(named)) == len(named)
    if containers:
        assert len(entries) == INSIDE.get(name, 1)
    else:
        assert not read & set(named) - {"more/extra.mp4"}
