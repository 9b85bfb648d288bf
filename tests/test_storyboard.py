"""Storyboards: their keys and values, and one line with file and line for every mistake."""

import re
from pathlib import Path

import numpy as np
import pytest

from configs import cvivit
from phenaki.data import batches
from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.sampling.windows import segments, windows
from phenaki.stories import prompt_check, render, storyboard
from phenaki.text.vocabulary import ByteVocabulary
from phenaki.types import VideoSpec

SPEC = VideoSpec(frames=11, height=16, width=16, fps=8.0, patch=(2, 8, 8))
STORIES = sorted((Path(__file__).parents[1] / "examples" / "stories").glob("*.yaml"))


def read(tmp_path, text):
    (tmp_path / "story.yaml").write_text(text)
    return storyboard.read(tmp_path / "story.yaml", SPEC, context=5, seed=7)


def test_scenes_take_what_they_do_not_say_from_the_top(tmp_path):
    (tmp_path / "first.png").write_bytes(b"")
    story = read(
        tmp_path,
        """
        seconds: 2
        guidance: 3
        context: 3
        scenes:
          - prompt: a
          - {prompt: b, seconds: 1.5, seed: 4, guidance: 0, cut: hard, negative: fog}
          - prompt: c
            image: first.png
            choice_temperature: 2
            steps: 12
          - prompt: null
        """,
    )
    a, b, c, d = story.shots
    assert story.context == 3
    assert (a.prompt, a.seconds, a.cut, a.seed, a.image) == ("a", 2.0, False, 7, None)
    assert a.sampler == {"guidance": 3}
    assert (b.seconds, b.seed, b.cut) == (1.5, 4, True)
    assert b.sampler == {"guidance": 0, "negative": "fog"}
    assert (c.image, c.cut) == (tmp_path / "first.png", True)  # an image starts anew
    assert c.sampler == {"guidance": 3, "choice_temperature": 2, "steps": 12}
    assert d.prompt is None


def test_what_an_anchor_gives_may_be_given_again(tmp_path):
    shots = read(
        tmp_path,
        "scenes:\n  - &base {prompt: a, seconds: 1, steps: 3}\n"
        "  - <<: *base\n    prompt: b\n    steps: 4\n",
    ).shots
    assert [(s.prompt, s.sampler["steps"]) for s in shots] == [("a", 3), ("b", 4)]


SCENE = "scenes:\n  - prompt: a\n    seconds: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"story\.yaml: is empty; a story needs scenes"),
        ("# only a comment\n", r"story\.yaml: is empty"),
        ("a red circle", r":1: the story must be keys with values"),
        ("- prompt: a\n", r":1: the story must be keys with values"),
        ("scenes: [\n", r"story\.yaml:2: is not YAML: "),
        ("scenes:\n\t- a\n", r"story\.yaml:2: is not YAML: "),
        ("a: \x07\n", r"story\.yaml: is not YAML: "),
        ("seconds: 1\n", r"scenes must be a list of at least one"),
        ("scenes: []\n", r"scenes must be a list of at least one"),
        ("scenes:\n  - a red circle\n", r":2: scene 1 must be keys with values"),
        ("scenes:\n  - prompt: a\n", r"scene 1 has no seconds"),
        ("scenes:\n  - seconds: 1\n", r"scene 1 has no prompt"),
        (SCENE + "  - promt: b\n", r":4: scene 2 has no key 'promt'; .* did you mean prompt\?"),
        (SCENE + "zzz: 1\n", r":4: the story has no key 'zzz'; keys are context, scenes, seconds"),
        (SCENE + "    seconds: 2\n", r":4: seconds was already given in line 3"),
        (
            "guidence: 1\n" + SCENE,
            r":1: the story has no key 'guidence'; .*did you mean guidance\?",
        ),
        ("prompt: a\n" + SCENE, r":1: the story has no key 'prompt'; it belongs to a scene\."),
        ("context: 0\n" + SCENE, r":1: context=0 must be 1 \+ a multiple of 2 .* nearest is 1\."),
        ("context: 4\n" + SCENE, r":1: context=4 must be 1 \+ a multiple of 2 .* nearest is 3\."),
        ("context: 11\n" + SCENE, r":1: context=11 must be .* nearest is 9\."),
        ("context: five\n" + SCENE, r":1: context='five' must be a whole number"),
        ("steps: 0\n" + SCENE, r":1: steps=0 must be at least 1"),
        ("steps: 2.5\n" + SCENE, r":1: steps=2\.5 must be a whole number"),
        ("steps: true\n" + SCENE, r":1: steps=True must be a whole number"),
        ("choice_temperature: -1\n" + SCENE, r"choice_temperature=-1 must lie in \[0, inf\]"),
        ("top_p: 1.5\n" + SCENE, r"top_p=1\.5 must lie in \[0, 1\]"),
        ("seconds: 0\n" + SCENE, r":1: seconds=0 must be above 0"),
        ("seconds: .nan\n" + SCENE, r":1: seconds=nan must be above 0"),
        ("guidance: high\n" + SCENE, r":1: guidance='high' must be a number"),
        ("cut: soft\n" + SCENE, r":1: cut='soft' must be hard or morph"),
        (SCENE + "  - prompt: yes\n", r":4: prompt=True must be text, quoted if necessary"),
        (SCENE + "    image: none.png\n", r":4: image .*none\.png: no such file"),
        (SCENE + "    image: story.yaml\n    cut: morph\n", r":5: cut=morph must be hard: scene 1"),
        ("x: !!python/object:os.system {}\n", r":1: the story has no key 'x'"),
        ("seed: !!python/object:os.system {}\n" + SCENE, r":1: is not YAML: could not determine"),
    ],
)
def test_a_bad_story_is_one_line_with_its_place(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, text)
    assert str(tmp_path / "story.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_story_that_is_no_text_is_said_to_be_none(tmp_path):
    (tmp_path / "story.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(UserError, match=r"story\.yaml: is not a text file"):
        storyboard.read(tmp_path / "story.yaml", SPEC, 5, 0)


def test_short_scenes_and_cut_prompts_are_said():
    shots = [
        storyboard.Shot("a", 1.0),
        storyboard.Shot("b" * 20, 0.75),
        storyboard.Shot("c", 0.7),
        storyboard.Shot("d", 1.0, cut=True),
    ]
    assert storyboard.warnings_for(shots, SPEC, 5, ByteVocabulary(16).is_cut) == [
        "scene 1 asks for 1 s and lasts 1.375 s, one window.",
        f"scene 2: the text encoder cuts the end of {'b' * 20!r}.",
        "scene 3 asks for 0.7 s and lasts 0.75 s, one window.",
        "scene 4 asks for 1 s and lasts 1.375 s, one window.",
    ]


def test_a_hard_cut_starts_a_clip():
    shots = [
        storyboard.Shot("a", 1.4),
        storyboard.Shot("b", 2.0, cut=True),
        storyboard.Shot("c", 0.75),
    ]
    plan = windows(shots, SPEC, 5)
    assert [(w.start, w.stop, w.starts) for w in plan] == [
        (0, 11, True),
        (11, 22, True),
        (22, 28, False),
        (28, 34, False),
    ]
    assert segments(plan) == [(0, 11), (11, 28), (28, 34)]


# --- the stories of this repository


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_every_example_is_a_story(path):
    story = storyboard.read(path, factory.video_spec(cvivit.get_config("t2v")), 5, 0)
    assert all(shot.prompt for shot in story.shots)


def test_two_minutes_are_160_windows_of_prompts_that_change_one_attribute():
    config = cvivit.get_config("laptop")
    (path,) = [path for path in STORIES if path.stem == "two_minutes"]
    story = storyboard.read(path, factory.video_spec(config), 5, 0)
    plan = windows(story.shots, factory.video_spec(config), story.context)
    assert len(plan) == 160
    assert plan[-1].stop == 11 + 6 * 159
    world = batches.world(config)
    asked = [prompt_check.parse_prompt(world, shot.prompt) for shot in story.shots]
    changed = np.diff([a.combination[0] for a in asked if a is not None], axis=0) != 0
    assert changed.shape == (39, 3)
    assert (changed.sum(1) == 1).all()


def test_the_example_of_the_page_is_a_story(tmp_path):
    page = (STORIES[0].parents[2] / "docs" / "stories.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "first.png").write_bytes(b"")
    assert [shot.cut for shot in read(tmp_path, block).shots] == [True, False, True]


# --- subtitles


def test_subtitles_are_the_prompts_at_their_times():
    texts = ["a red circle", None, "then\n\na  square"]
    parts = [(0, 11), (11, 17), (17, 8 * 3700 + 1)]
    assert render.srt(texts, parts, fps=8.0) == (
        "1\n00:00:00,000 --> 00:00:01,375\na red circle\n\n"
        "2\n00:00:02,125 --> 01:01:40,125\nthen a square\n"
    )
