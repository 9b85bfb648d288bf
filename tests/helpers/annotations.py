"""Writes small inputs with published annotation files: real names of fields, units and files."""

import json
from collections.abc import Callable
from pathlib import Path

from layouts import table, video

WHOLE = 32  # frames of a video, 4 s


def activitynet(root: Path) -> None:
    for name in ("v_QOlSCBRmfWY", "v_uqiMw7tQ1Cc"):
        video(root / "videos" / f"{name}.mp4", WHOLE)
    one = {
        "duration": 4.01,
        "timestamps": [[0, 1.5], [1.25, 4.02]],
        "sentences": ["She talks.", " He runs"],
    }
    other = {"duration": 4, "timestamps": [[0.28, 3.9]], "sentences": ["A dog barks."]}
    gone = {"duration": 82.73, "timestamps": [[0.83, 19.86]], "sentences": ["Gone."]}
    _json(root / "captions/train.json", {"v_QOlSCBRmfWY": one, "v_bXdq2zI1Ms0": gone})
    for name in ("val_1.json", "val_2.json"):
        _json(root / "captions" / name, {"v_uqiMw7tQ1Cc": other})
        other = other | {"timestamps": [[2, 4]], "sentences": ["It stops."]}
    _json(root / "captions/train_ids.json", ["v_QOlSCBRmfWY", "v_bXdq2zI1Ms0"])


def youcook2(root: Path) -> None:
    video(root / "raw_videos/training/212/GLd3aX16zBg.mp4", WHOLE)
    video(root / "raw_videos/validation/113/xHr8X2Wpmno.mkv", WHOLE)
    steps = [
        {"id": 0, "segment": [0, 2], "sentence": "place the bacon slices on a baking pan"},
        {"id": 1, "segment": [2, 4], "sentence": "cut the tomatoes"},
    ]
    entry = {"duration": 241.64, "recipe_type": "212", "video_url": "u", "annotations": steps}
    database = {
        "GLd3aX16zBg": entry | {"subset": "training"},
        "xHr8X2Wpmno": entry | {"subset": "validation", "annotations": steps[1:]},
    }
    _json(root / "youcookii_annotations_trainval.json", {"database": database})


def msrvtt(root: Path) -> None:
    """The times are those in the video at the url: the files are cut."""
    videos = []
    for number, split in enumerate(("train", "validate")):
        video(root / f"TrainValVideo/video{number}.mp4", first=20 * number)
        videos.append(
            {"category": 9, "url": "https://www.youtube.com/watch?v=9lZi22qLlEo", "id": number}
            | {
                "video_id": f"video{number}",
                "start time": 137.72,
                "end time": 149.44,
                "split": split,
            }
        )
    sentences = [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
        {"caption": "in a race", "video_id": "video1", "sen_id": 1},
        {"caption": "cars on a road", "video_id": "video0", "sen_id": 2},
    ]
    info = {"contributor": "c", "year": "2016", "description": "MSR-VTT 10K"}
    content = {"info": info, "videos": videos, "sentences": sentences}
    _json(root / "train_val_videodatainfo.json", content)


def vatex(root: Path) -> None:
    """A file with the name of its clip is cut, one with the id of its video is not."""
    video(root / "train/Ptf_2VRj-V0_000122_000132.mp4")
    video(root / "val/DnCOAvfgJjM.mp4", WHOLE)
    both = {"enCap": ["A man paddles", "A boat"], "chCap": ["一个人", "船"]}
    _json(root / "vatex_training_v1.0.json", [{"videoID": "Ptf_2VRj-V0_000122_000132"} | both])
    _json(root / "vatex_validation_v1.0.json", [{"videoID": "DnCOAvfgJjM_000001_000003"} | both])
    video(root / "test/QOlSCBRmfWY_000007_000017.mp4", first=60)
    _json(root / "vatex_private_test.json", [{"videoID": "QOlSCBRmfWY_000007_000017"}])


def didemo(root: Path) -> None:
    """Inclusive chunks of five seconds, by several annotators; the last chunk is shorter."""
    name = "54322086@N00_2408598493_274c77d26a"
    video(root / f"videos/{name}.mp4", 56)
    row = {"annotation_id": 0, "video": f"{name}.avi", "num_segments": 2, "download_link": "u"}
    rows = [
        row | {"description": "first time cat jumps", "times": [[0, 0], [0, 1], [0, 0], [0, 0]]},
        row | {"description": "the dog comes back", "times": [[1, 1], [1, 1], [0, 1]]},
        row | {"description": "all of it", "times": [[0, 1]] * 4},
    ]
    _json(root / "train_data.json", rows)


def charades_sta(root: Path) -> None:
    video(root / "Charades_v1_480/3MSZA.mp4", WHOLE)
    video(root / "Charades_v1_480/AO8RW.mp4", WHOLE)
    lines = (
        "3MSZA 0.5 3.4##person turn a light on.\n3MSZA 0.5 3.4##a person flips the light switch.\n"
    )
    (root / "charades_sta_train.txt").write_text(lines)
    (root / "charades_sta_test.txt").write_text(
        "AO8RW 0.0 2.9##a person is putting a book on a shelf.\n"
    )
    _charades(root)


def charades(root: Path) -> None:
    video(root / "Charades_v1_480/3MSZA.mp4")
    video(root / "Charades_v1_480/AO8RW.mp4", first=40)
    _charades(root)


def _charades(root: Path) -> None:
    header = (
        "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
    )
    row = (
        "HJZU",
        "Home Office",
        "6",
        "7",
        "Yes",
        "A person.",
        "light",
        "One person turns;A light.",
    )
    for name, key in (("train", "3MSZA"), ("test", "AO8RW")):
        table(root / f"Charades_v1_{name}.csv", header, [(key, *row, "c104 0.00 1.2", "4.0")])


def ssv2(root: Path) -> None:
    for number, name in enumerate(("78687", "42326", "100904")):
        video(root / f"20bn-something-something-v2/{name}.webm", first=20 * number)
    label = {"label": "holding potato next to vicks vaporub bottle"}
    template = "Holding [something] next to [something that cannot actually stand upright]"
    entry = label | {"template": template, "placeholders": ["potato", "vicks vaporub bottle"]}
    for split, rows in (
        ("train", [{"id": "78687"} | entry]),
        ("validation", [{"id": "42326"} | entry]),
        ("test", [{"id": "100904"}]),
    ):
        _json(root / f"something-something-v2-{split}.json", rows)
    _json(root / "something-something-v2-labels.json", {"Holding something next to something": "0"})


def tgif(root: Path) -> None:
    place = "https://38.media.tumblr.com/9f659499c8754e40cf3f7ac21d08dae6"
    names = ("tumblr_nqlr0rn8ox1r2r0koo1_400", "tumblr_ncjpmkmAPG1tkzbfqo1_400")
    lines = []
    for number, (name, split) in enumerate(zip(names, ("train", "test"), strict=True)):
        video(root / f"gifs/{name}.mp4", first=20 * number)
        (root / f"{split}.txt").write_text(f"{place}/{name}.gif\n")
        lines += [f'{place}/{name}.gif\ta man "is glaring, {split}', f"{place}/{name}.gif\tsomeone"]
    (root / "tgif-v1.0.tsv").write_text("\n".join(lines) + "\n")


def hdvila(root: Path) -> None:
    """Clips without captions; those of the second video are cut."""
    video(root / "videos/QMi8tTXWvPM.mp4", WHOLE)
    video(root / "videos/Z5hLzn8bWp8.1.mp4", first=40)
    span = [["00:00:00.500", "00:00:02.000"], ["00:00:02.000", "00:00:03.900"]]
    with (root / "hdvila_part0.jsonl").open("w") as file:
        for name in ("QMi8tTXWvPM", "Z5hLzn8bWp8"):
            clips = [{"clip_id": f"{name}.{n}.mp4", "span": s} for n, s in enumerate(span)]
            line = {
                "video_id": name,
                "url": f"https://www.youtube.com/watch?v={name}",
                "clip": clips,
            }
            file.write(json.dumps(line) + "\n")


def panda70m(root: Path) -> None:
    video(root / "---s-ml9ujs.mp4", WHOLE)
    header = "videoID,url,timestamp,caption,matching_score,desirable_filtering"
    times = str([["0:00:00.500", "0:00:02.000"], ["0:00:02.000", "0:00:03.875"]])
    texts = str(['A man\'s hat, "blue".', "It is a close-up."])
    table(
        root / "panda70m_training_2m.csv",
        header,
        [("---s-ml9ujs", "u", times, texts, "[0.41, 0.39]", "['desirable', 'still']")],
    )


def internvid(root: Path) -> None:
    video(root / "-0-dks2JEaI.mp4", WHOLE)
    video(root / "zzzzzzzzzzz_00:00:10.000_00:00:12.000.mp4", first=40)
    with (root / "InternVid-10M.jsonl").open("w") as file:
        for name, start, end in (
            ("-0-dks2JEaI", "00:00:00.500", "00:00:03.250"),
            ("zzzzzzzzzzz", "00:00:10.000", "00:00:12.000"),
        ):
            row = {"YoutubeID": name, "Start_timestamp": start, "End_timestamp": end}
            row |= {"Caption": "a person playing", "Aesthetic_Score": 4.2, "UMT_Score": 0.37}
            file.write(json.dumps(row) + "\n")


def openvid(root: Path) -> None:
    name = "--_UGmhfNkU_22_0to104.mp4"
    video(root / "video" / name)
    header = (
        "video,caption,aesthetic score,motion score,temporal consistency score,"
        "camera motion,frame,fps,seconds"
    )
    row = (name, 'A man says "hi", and goes', "5.1", "", "0.99", "static", "104", "29.97", "3.47")
    table(root / "OpenVid-1M.csv", header, [row])


def vript(root: Path) -> None:
    """A file per video; the second scene has no caption."""
    for number in (1, 2):
        video(root / f"clips/--6HnoPmZT4/--6HnoPmZT4-Scene-{number:03d}.mp4", first=30 * number)
    text = {"shot_type": "Medium shot", "camera_movement": "static", "scene_title": "A title"}
    both = {"video_id": "--6HnoPmZT4", "video_title": "t", "voiceover": ["hello"]}
    data = {
        f"--6HnoPmZT4-Scene-{number:03d}": both
        | {"clip_id": f"--6HnoPmZT4-Scene-{number:03d}", "caption": caption}
        for number, caption in ((1, text | {"content": "A man cooks."}), (2, None))
    }
    meta = {"video_id": "--6HnoPmZT4", "video_title": "t", "num_clips": 2, "integrity": False}
    _json(root / "captions/--6HnoPmZT4_caption.json", {"meta": meta, "data": data})


def _json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# Name of --layout -> its writer.
ANNOTATIONS: dict[str, Callable[[Path], None]] = {
    "activitynet": activitynet,
    "youcook2": youcook2,
    "msrvtt": msrvtt,
    "vatex": vatex,
    "didemo": didemo,
    "charades-sta": charades_sta,
    "charades": charades,
    "ssv2": ssv2,
    "tgif": tgif,
    "hdvila": hdvila,
    "panda70m": panda70m,
    "internvid": internvid,
    "openvid": openvid,
    "vript": vript,
}
