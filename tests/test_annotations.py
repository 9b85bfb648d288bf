"""Published annotation files: which part of which file has which captions and which split."""

import json

import layouts
import pytest
from annotations import ANNOTATIONS, activitynet, didemo, panda70m, ssv2, vatex
from decoded import decode, numbers

from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError

TRAIN, VALIDATION = "train", "validation"
CAT = "videos/54322086@N00_2408598493_274c77d26a.mp4"
HOLDING = ("holding potato next to vicks vaporub bottle",)
GLARING = 'a man "is glaring'
# Name of --layout -> (item, first number shown, captions, split) of each; names of problems.
EXPECTED = {
    "activitynet": (
        [
            ("videos/v_QOlSCBRmfWY.mp4#0-1.5", 0, ("She talks.",), TRAIN),
            ("videos/v_QOlSCBRmfWY.mp4#1.25-4.02", 10, ("He runs",), TRAIN),
            ("videos/v_uqiMw7tQ1Cc.mp4#0.28-3.9", 2, ("A dog barks.",), VALIDATION),
            ("videos/v_uqiMw7tQ1Cc.mp4#2-4", 16, ("It stops.",), VALIDATION),
        ],
        ["v_bXdq2zI1Ms0"],
    ),
    "youcook2": (
        [
            (
                "raw_videos/training/212/GLd3aX16zBg.mp4#0-2",
                0,
                ("place the bacon slices on a baking pan",),
                TRAIN,
            ),
            ("raw_videos/training/212/GLd3aX16zBg.mp4#2-4", 16, ("cut the tomatoes",), TRAIN),
            (
                "raw_videos/validation/113/xHr8X2Wpmno.mkv#2-4",
                16,
                ("cut the tomatoes",),
                VALIDATION,
            ),
        ],
        [],
    ),
    "msrvtt": (
        [
            ("TrainValVideo/video0.mp4", 0, ("a car is shown", "cars on a road"), TRAIN),
            ("TrainValVideo/video1.mp4", 20, ("in a race",), VALIDATION),
        ],
        [],
    ),
    "vatex": (
        [
            ("test/QOlSCBRmfWY_000007_000017.mp4", 60, (), VALIDATION),
            ("train/Ptf_2VRj-V0_000122_000132.mp4", 0, ("A man paddles", "A boat"), TRAIN),
            ("val/DnCOAvfgJjM.mp4#1-3", 8, ("A man paddles", "A boat"), VALIDATION),
        ],
        [],
    ),
    "didemo": (
        [
            (f"{CAT}#0-10", 0, ("all of it",), TRAIN),
            (f"{CAT}#0-5", 0, ("first time cat jumps",), TRAIN),
            (f"{CAT}#5-10", 40, ("the dog comes back",), TRAIN),
        ],
        [],
    ),
    "charades-sta": (
        [
            (
                "Charades_v1_480/3MSZA.mp4#0.5-3.4",
                4,
                ("person turn a light on.", "a person flips the light switch."),
                TRAIN,
            ),
            (
                "Charades_v1_480/AO8RW.mp4#0-2.9",
                0,
                ("a person is putting a book on a shelf.",),
                VALIDATION,
            ),
        ],
        ["Charades_v1_test.csv", "Charades_v1_train.csv"],
    ),
    "charades": (
        [
            ("Charades_v1_480/3MSZA.mp4", 0, ("One person turns", "A light."), TRAIN),
            ("Charades_v1_480/AO8RW.mp4", 40, ("One person turns", "A light."), VALIDATION),
        ],
        [],
    ),
    "ssv2": (
        [
            ("20bn-something-something-v2/100904.webm", 40, (), VALIDATION),
            ("20bn-something-something-v2/42326.webm", 20, HOLDING, VALIDATION),
            ("20bn-something-something-v2/78687.webm", 0, HOLDING, TRAIN),
        ],
        [],
    ),
    "tgif": (
        [
            (
                "gifs/tumblr_ncjpmkmAPG1tkzbfqo1_400.mp4",
                20,
                (f"{GLARING}, test", "someone"),
                VALIDATION,
            ),
            ("gifs/tumblr_nqlr0rn8ox1r2r0koo1_400.mp4", 0, (f"{GLARING}, train", "someone"), TRAIN),
        ],
        [],
    ),
    "hdvila": (
        [
            ("videos/QMi8tTXWvPM.mp4#0.5-2", 4, (), None),
            ("videos/QMi8tTXWvPM.mp4#2-3.9", 16, (), None),
            ("videos/Z5hLzn8bWp8.1.mp4", 40, (), None),
        ],
        ["Z5hLzn8bWp8"],
    ),
    "panda70m": (
        [
            ("---s-ml9ujs.mp4#0.5-2", 4, ('A man\'s hat, "blue".',), TRAIN),
            ("---s-ml9ujs.mp4#2-3.875", 16, ("It is a close-up.",), TRAIN),
        ],
        [],
    ),
    "internvid": (
        [
            ("-0-dks2JEaI.mp4#0.5-3.25", 4, ("a person playing",), None),
            ("zzzzzzzzzzz_00:00:10.000_00:00:12.000.mp4", 40, ("a person playing",), None),
        ],
        [],
    ),
    "openvid": (
        [("video/--_UGmhfNkU_22_0to104.mp4", 0, ('A man says "hi", and goes',), None)],
        [],
    ),
    "vript": (
        [
            ("clips/--6HnoPmZT4/--6HnoPmZT4-Scene-001.mp4", 30, ("A man cooks.",), None),
            ("clips/--6HnoPmZT4/--6HnoPmZT4-Scene-002.mp4", 60, (), None),
        ],
        [],
    ),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_a_published_set_becomes_segments_or_files(name, tmp_path):
    items, problems = EXPECTED[name]
    ANNOTATIONS[name](tmp_path / "in")
    found = find.find(tmp_path / "in")
    assert [(i.key, i.captions, i.split) for i in found] == [(k, c, s) for k, _, c, s in items]
    assert [problem.name for problem in found.problems] == problems
    assert list(find.find(tmp_path / "in", layout=name)) == list(found)
    clips, reasons = decode(found, tmp_path / "spool", limit=1)
    assert [numbers(clip)[0] for clip in clips.values()] == [number for _, number, *_ in items]
    assert not reasons


def test_annotations_elsewhere_and_several_sets_in_one_folder(tmp_path):
    activitynet(tmp_path / "in")
    (tmp_path / "in/captions").rename(tmp_path / "captions")
    val = find.find(tmp_path / "in", tmp_path / "captions/val_1.json")
    assert [item.key for item in val] == ["videos/v_uqiMw7tQ1Cc.mp4#0.28-3.9"]
    assert [problem.reason for problem in val.problems] == ["no row names it: not read"]
    assert len(list(find.find(tmp_path / "in", tmp_path / "captions", "activitynet"))) == 4
    (tmp_path / "captions").rename(tmp_path / "in/captions")
    panda70m(tmp_path / "in")
    both = find.find(tmp_path / "in")
    assert len(list(both)) == 6 and both.layout.startswith("ActivityNet Captions and Panda-70M")


def test_captions_of_other_fields(tmp_path):
    ssv2(tmp_path / "ssv2")
    named = find.find(tmp_path / "ssv2", fields={"caption": "template"})
    assert [item.caption for item in named] == [
        None,
        *["Holding something next to something that cannot actually stand upright"] * 2,
    ]
    vatex(tmp_path / "vatex")
    chinese = find.find(tmp_path / "vatex", fields={"caption": "chCap"})
    assert [item.captions for item in chinese] == [(), ("一个人", "船"), ("一个人", "船")]


@pytest.mark.parametrize("field", ["segment", "segments"])
def test_variants_of_activitynet_name_their_times_otherwise(tmp_path, field):
    layouts.video(tmp_path / "v_a.mp4")
    entry = {"duration": 2.5, "duration_frame": 20, field: [[0, 1.5]], "sentences": ["She talks."]}
    (tmp_path / "train.json").write_text(json.dumps({"v_a": entry}))
    (item,) = find.find(tmp_path)
    assert (item.key, item.caption) == ("v_a.mp4#0-1.5", "She talks.")


def test_vript_in_one_file_of_lines(tmp_path):
    """A video per line, or a scene per line."""
    for number in (1, 2):
        layouts.video(tmp_path / f"clips/ID-Scene-00{number}.mp4")
    scenes = {
        f"ID-Scene-00{number}": {
            "video_id": "ID",
            "clip_id": f"ID-Scene-00{number}",
            "caption": {"content": f"scene {number}", "scene_title": "t"},
            "voiceover": [],
        }
        for number in (1, 2)
    }
    videos = [{"meta": {"video_id": "ID"}, "data": scenes}]
    for lines in (videos, scenes.values()):
        (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
        found = find.find(tmp_path)
        assert found.layout.startswith("Vript")
        assert [item.caption for item in found] == ["scene 1", "scene 2"]
    (tmp_path / "all.jsonl").write_text(json.dumps(videos[0]) + "\n{")
    with pytest.raises(UserError, match="line 2 is not JSON"):
        find.find(tmp_path)


def test_a_table_as_panda70m_may_have_a_clip_per_row(tmp_path):
    layouts.video(tmp_path / "abc.mp4", 40)
    (tmp_path / "train.csv").write_text(
        "videoID,url,timestamp,clarity_score,caption\n"
        "abc,u,\"['0:00:00.500', '0:00:02.000']\",0.97,A man runs.\n"
        "abc,u,\"['0:00:02.000', '0:00:03.875']\",0.9,\"He stops, then.\"\n"
    )
    assert [(item.key, item.caption) for item in find.find(tmp_path)] == [
        ("abc.mp4#0.5-2", "A man runs."),
        ("abc.mp4#2-3.875", "He stops, then."),
    ]


def test_the_files_of_webvid_lie_in_any_folder(tmp_path):
    for folder in ("part_0/000001_000050", "000051_000100"):
        layouts.video(tmp_path / folder / "7.mp4")
    rows = ["7,u,PT00H00M13S,000001_000050,A cat", "7,u,PT00H00M13S,000051_000100,A dog"]
    (tmp_path / "results_2M_val.csv").write_text(
        "\n".join(["videoid,contentUrl,duration,page_dir,name", *rows])
    )
    assert [(item.key, item.caption, item.split) for item in find.find(tmp_path)] == [
        ("000051_000100/7.mp4", "A dog", VALIDATION),
        ("part_0/000001_000050/7.mp4", "A cat", VALIDATION),
    ]


def test_a_bad_entry_costs_that_entry(tmp_path):
    root = tmp_path / "in"
    for name in "abcdef":
        layouts.video(root / f"{name}.mp4")
    entries = {
        "v_a": {"timestamps": [[0, 1], ["x", 2], [0.5, None]], "sentences": ["good", "no", "no"]},
        "v_b": {"timestamps": [[0, 1]], "sentences": []},
        "v_c": {"timestamps": None, "sentences": ["no"]},
        "v_d": {"sentences": ["no"]},
        "v_e": "no",
        "v_f": {"timestamps": [[0, 1, 2]], "sentences": ["no"]},
    }
    (root / "train.json").write_text(json.dumps(entries))
    found = find.find(root)
    assert [(item.key, item.caption) for item in found] == [("a.mp4#0-1", "good")]
    assert [(p.name, p.reason.partition(": ")[2]) for p in found.problems] == [
        ("v_a#x-2", "'x' is not a time: seconds, H:M:S.ms or frames"),
        ("v_a#0.5-None", "no start and end"),
        ("v_b", "1 timestamps and 0 sentences"),
        ("v_c", "an entry of another form"),
        ("v_d", "its entry has no 'timestamps'"),
        ("v_e", "an entry of another form"),
        ("v_f", "too many values to unpack (expected 2)"),
        *((f"{name}.mp4", "not read") for name in "bcdef"),
    ]


@pytest.mark.parametrize(
    "content, reason",
    [
        ('{"v_x": {"timestamps": [[0, 1]], "sentences": ["a"]', "not readable as JSON"),
        (
            '{"v_x": {"timestamps": [[0, 1]], "sentences": ["a"]}}',
            "none of its 1 rows names a video",
        ),
        (
            '{"videos": [{"video_id": "v", "category": 1}], "sentences": [1]}',
            "as MSR-VTT is published",
        ),
    ],
)
def test_useless_annotation_files_are_refused(tmp_path, content, reason):
    didemo(tmp_path)
    (tmp_path / "train_data.json").write_text(content)
    with pytest.raises(UserError, match=reason):
        find.find(tmp_path)
