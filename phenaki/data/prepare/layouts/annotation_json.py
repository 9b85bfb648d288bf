"""Annotation files in JSON, of videos and of images.

ActivityNet Captions, YouCook2, MSR-VTT, VATEX, DiDeMo, SSv2, Vript; COCO's and Karpathy's captions.
"""

import collections
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from phenaki.data.prepare import captions, text_files
from phenaki.data.prepare.items import Skipped
from phenaki.data.prepare.layouts.media_index import Format, Row, Sniff, cut_out, split_in
from phenaki.errors import UserError

_TIMES = ("timestamps", "segments", "segment")  # names in variants of ActivityNet Captions
CHUNK = 5  # seconds of DiDeMo's unit of time
_CUT = re.compile(r"(?P<video>.+)_(?P<start>\d{6})_(?P<end>\d{6})")


def load(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: not readable.
    """
    try:
        return json.loads(text_files.read(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {str(error)[:80]}.") from None


def _lines(path: Path) -> Iterator[Any]:
    """The content of each line of a JSONL file."""
    with path.open(encoding=text_files.encoding(path)) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{path}: line {number} is not JSON: {error}.") from None


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    """Those of an object by name, or those of a list by number."""
    content = load(path)
    yield from content.items() if isinstance(content, dict) else _numbered(content)


def _numbered(content: Any) -> Iterator[tuple[str, Any]]:
    for number, entry in enumerate(content if isinstance(content, list) else [], 1):
        yield f"entry {number}", entry


def _of_object(*names: str):
    return lambda sniff: _is(sniff, "{", names)


def _of_list(*names: str):
    return lambda sniff: _is(sniff, "[", names)


def _is(sniff: Sniff, bracket: str, names: tuple[str, ...]) -> bool:
    return sniff.suffix == ".json" and sniff.head[:1] == bracket and set(names) <= sniff.names


def _youtube(name: str) -> tuple[str, ...]:
    """Files of ActivityNet are called v_ID or ID."""
    return name, name.removeprefix("v_"), f"v_{name}"


def _activitynet(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """{"v_ID": {"duration", "timestamps": [[start, end]], "sentences"}}, in seconds."""
    of_times = next((field for field in _TIMES if field in entry), _TIMES[0])
    times, sentences = entry[of_times], entry["sentences"]
    if len(times) != len(sentences):
        raise ValueError(f"{len(times)} {of_times} and {len(sentences)} sentences")
    for (start, end), sentence in zip(times, sentences, strict=True):
        yield cut_out(Row(_youtube(name), captions.of(sentence)), start, end)


def _database(path: Path) -> Iterator[tuple[str, Any]]:
    content = load(path)
    yield from content["database"].items() if isinstance(content["database"], dict) else ()


def _youcook2(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """{"database": {ID: {"subset", "annotations": [{"segment": [start, end], "sentence"}]}}}."""
    split = split_in(str(entry.get("subset")))
    for part in entry.get("annotations") or entry.get("annotation") or []:
        start, end = part["segment"]
        text = part.get("sentence") or part.get("label")
        yield cut_out(Row(_youtube(name), captions.of(text), split), start, end)


def _videos(path: Path) -> Iterator[tuple[str, Any]]:
    """Joins the sentences of MSR-VTT to its videos."""
    content = load(path)
    texts = collections.defaultdict(list)
    for sentence in content.get("sentences", []):
        texts[sentence["video_id"]].append(sentence["caption"])
    videos = {video["video_id"]: video for video in content.get("videos", [])}
    for name in dict.fromkeys((*videos, *texts)):
        yield name, (videos.get(name, {}).get("split"), texts.get(name, []))


def _msrvtt(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """The times of its videos are those in the source at `url`; the files are cut."""
    split, texts = entry
    yield Row((name,), captions.of(texts), split_in(str(split)))


def _vatex(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """[{"videoID": ID_START_END, "enCap", "chCap"}]; ID_START_END.mp4 is cut, ID.mp4 is not."""
    name = entry["videoID"]
    row = Row((name,), captions.of(entry.get(fields.get("caption", "enCap"))), cut=(name,))
    if times := _CUT.fullmatch(name):
        yield cut_out(row._replace(names=(times["video"],)), times["start"], times["end"])
    else:
        yield row


def _didemo(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """[{"video", "description", "times"}]: a pair of chunks, inclusive, per annotator."""
    times = collections.Counter((int(first), int(last)) for first, last in entry["times"])
    (first, last), _ = times.most_common(1)[0]  # of equal numbers the earlier annotator
    row = Row((entry["video"],), captions.of(entry["description"]))
    # The last chunk of a video is shorter.
    yield cut_out(row, first * CHUNK, (last + 1) * CHUNK, slack=CHUNK)


def _is_ssv2(sniff: Sniff) -> bool:
    return _is(sniff, "[", ("id",)) and ("template" in sniff.names or "something" in sniff.name)


def _ssv2(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """[{"id", "label", "template": "Holding [something]"}]; files ID.webm."""
    text = entry.get(fields.get("caption", "label"))
    yield Row((str(entry["id"]),), captions.of(re.sub(r"[\[\]]", "", text) if text else None))


def _is_vript(sniff: Sniff) -> bool:
    if sniff.suffix == ".jsonl":
        return {"clip_id", "caption"} <= sniff.names and bool({"data", "voiceover"} & sniff.names)
    return _is(sniff, "{", ("meta", "data", "clip_id"))


def _scenes(path: Path) -> Iterator[tuple[str, Any]]:
    """Those of a video, or of a line of JSONL per video or per scene."""
    contents = _lines(path) if path.suffix.lower() == ".jsonl" else [load(path)]
    for content in contents:
        if "data" in content:
            yield from content["data"].items()
        else:
            yield content["clip_id"], content


def _vript(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """{"data": {ID-Scene-001: {"video_id", "clip_id", "caption": {"content"}}}}; cut files."""
    text = entry.get("caption")
    yield Row(
        (f"{entry['video_id']}/{entry.get('clip_id', name)}", entry.get("clip_id", name)),
        captions.of(text.get("content") if isinstance(text, dict) else text),
    )


def _is_coco(sniff: Sniff) -> bool:
    """Files of boxes and keypoints have images, too; the captions may come after what is read."""
    texts = "caption" in sniff.names or "caption" in sniff.name.lower()
    return texts and _is(sniff, "{", ("images", "file_name"))


def _images(path: Path) -> Iterator[tuple[str, Any]]:
    """Joins the captions of COCO to its images."""
    content = load(path)
    texts = collections.defaultdict(list)
    for annotation in content["annotations"]:
        texts[annotation["image_id"]].append(annotation["caption"])
    for image in content["images"]:
        yield image["file_name"], texts[image["id"]]


def _coco(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}."""
    yield Row((name, PurePosixPath(name).name), captions.of(entry))


def _described(path: Path) -> Iterator[tuple[str, Any]]:
    yield from ((image["filename"], image) for image in load(path)["images"])


def _karpathy(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """{"images": [{"filepath", "filename", "sentences": [{"raw"}], "split"}]}."""
    place = f"{entry['filepath']}/{name}" if entry.get("filepath") else name
    texts = [sentence["raw"] for sentence in entry["sentences"]]
    split = "train" if entry.get("split") == "restval" else entry.get("split")
    yield Row((place, name), captions.of(texts), split_in(str(split)))


FORMATS: dict[str, Format] = {
    "coco": Format("COCO captions", _is_coco, _images, _coco),
    "karpathy": Format(
        "sentences of images as Karpathy's splits",
        _of_object("images", "filename", "sentences", "raw"),
        _described,
        _karpathy,
    ),
    "activitynet": Format(
        "ActivityNet Captions",
        lambda sniff: any(_is(sniff, "{", (name, "sentences")) for name in _TIMES),
        _members,
        _activitynet,
    ),
    "youcook2": Format(
        "database of segments as YouCook2", _of_object("database", "segment"), _database, _youcook2
    ),
    "msrvtt": Format(
        "MSR-VTT",
        lambda sniff: any(
            _is(sniff, "{", ("video_id", name, mark))
            for name, mark in (("sentences", "sen_id"), ("videos", "category"))
        ),
        _videos,
        _msrvtt,
    ),
    "vatex": Format("VATEX", _of_list("videoid"), _members, _vatex),
    "didemo": Format("DiDeMo", _of_list("annotation_id", "times"), _members, _didemo),
    "ssv2": Format("Something-Something v2", _is_ssv2, _members, _ssv2),
    "vript": Format("Vript", _is_vript, _scenes, _vript),
}
