"""Storyboards: their keys and values, and one line with file and line for every mistake."""

import re
from pathlib import Path

import numpy as np
import pytest

from configs import cvivit
from phenaki.data import batches
from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.sampling.options import Defaults, resolve
from phenaki.sampling.windows import segments, windows
from phenaki.stories import notes, prompt_check, render, storyboard
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


@pytest.mark.parametrize("text", ["1e1", "1E1", "1e+1", "+1.e1", "100.0e-1", "1.0e+1", "10"])
def test_a_number_may_be_written_as_json_does(tmp_path, text):
    story = read(tmp_path, f"scenes:\n  - {{prompt: a, seconds: {text}, seed: 3}}\n")
    assert story.shots[0].seconds == 10


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
        (
            "scenes:\n- prompt: a scene: x\n",
            r'story\.yaml:2: .*put a text that has ": " in quotes\.',
        ),
        ("seconds: 1\n", r"scenes must be a list of at least one"),
        ("scenes: []\n", r"scenes must be a list of at least one"),
        (
            "scenes:\n  - a red circle\n",
            r":2: scene 1 must be keys with values, such as 'prompt: a red circle'",
        ),
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
        ("choice_temperature: -1\n" + SCENE, r"choice_temperature=-1 must be at least 0"),
        ("top_p: 1.5\n" + SCENE, r"top_p=1\.5 must be at most 1"),
        ("seed: -1\n" + SCENE, r":1: seed=-1 must lie in \[0, 2\*\*64 - 1\]; nearest is 0\."),
        (SCENE + f"    seed: {2**64}\n", rf":4: seed={2**64} must .* nearest is {2**64 - 1}\."),
        (SCENE + "    seconds: null\n", r":4: seconds was already given"),
        ("seconds: null\n" + SCENE, r":1: seconds=None must be a number"),
        (SCENE + "---\n" + SCENE, r"story\.yaml:4: begins a second document; a story is one"),
        ("seconds: 0\n" + SCENE, r":1: seconds=0 must be above 0"),
        ("seconds: .nan\n" + SCENE, r":1: seconds=nan must be a finite number"),
        ("guidance: high\n" + SCENE, r":1: guidance='high' must be a number"),
        ("cut: soft\n" + SCENE, r":1: cut='soft' must be one of hard, morph"),
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
    assert noted(shots) == [
        "each of scenes 1, 4 asks for 1 s and lasts 1.375 s, one window.",
        f"scene 2: the text encoder cuts the end of {'b' * 20!r}.",
        "scene 3 asks for 0.7 s and lasts 0.75 s, one window.",
    ]


def test_every_scene_that_lasts_another_time_than_asked_is_said():
    shots = [storyboard.Shot("a", seconds) for seconds in (1.375, 1.1, 1.1, 3.0, 0.1)]
    assert [w.scene for w in windows(shots, SPEC, 5)] == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    assert noted(shots) == [
        "scene 2 asks for 1.1 s and lasts 0.75 s, one window.",
        "scene 3 asks for 1.1 s and lasts 1.5 s, 2 windows.",
        "scene 5 asks for 0.1 s and lasts 0.75 s, one window.",
    ]
    short = [storyboard.Shot("a", 0.1, cut=True, seed=seed) for seed in range(3)]
    assert noted(short)[-1] == "the story lasts 4.125 s; its scenes ask for 0.3 s."
    many = [storyboard.Shot("a", 0.1, cut=True, seed=seed) for seed in range(20)]
    assert noted(many)[0].startswith("each of scenes 1, 2, 3, 4, 5, 6 and 14 more asks for 0.1 s ")


def test_negative_texts_that_are_cut_or_do_nothing_are_said():
    long = {"negative": "b" * 20}
    shots = [
        storyboard.Shot("a", 1.375, sampler=long),
        storyboard.Shot("a", 0.75, sampler=long),
        storyboard.Shot("a", 0.75, sampler={"preset": "foggy"}),
        storyboard.Shot("a", 0.75, sampler={"guidance": 0, "negative": "c"}),
        storyboard.Shot("a", 0.75, sampler={"guidance": 0, "negative": None}),
    ]
    assert noted(shots) == [
        f"each of scenes 1, 2: the text encoder cuts the end of {'b' * 20!r}.",
        f"scene 3: the text encoder cuts the end of {'fog' * 9!r}.",
        "scene 4: negative has no effect: guidance is 0.",
    ]


def test_an_option_that_later_windows_use_is_no_idle_one():
    """Of the released model's kind: its first windows are not guided, later ones are."""
    own = {"steps": 4, "choice_temperature": 1.0, "guidance": 0.0, "continued": {"guidance": 1.0}}
    pair = [resolve(Defaults(own), continues=case, guidance_limit=2.0) for case in (False, True)]
    assert notes.of_options(pair, ["guidance_limit"], True) == []
    idle = "guidance_limit has no effect: guidance is 0."
    assert notes.of_options(pair[:1], ["guidance_limit"], True) == [idle]


def test_a_scene_has_its_own_k_and_its_length_in_frames(tmp_path):
    scenes = "scenes:\n  - {prompt: a}\n  - {prompt: b, frames: 20, context: 7}\n"
    story = read(tmp_path, "context: 3\nseconds: 2\n" + scenes)
    assert [shot.context for shot in story.shots] == [None, 7]
    assert [shot.context_of(story.context) for shot in story.shots] == [3, 7]
    assert [shot.seconds for shot in story.shots] == [2.0, 2.5]
    plan = windows(story.shots, SPEC, story.context)
    # 11 and 8 of K = 3 for 16 asked; then 4 at a time.
    assert [w.stop - w.start for w in plan] == [11, 8, *[4] * (len(plan) - 2)]
    wrong = {
        "seconds: 1, frames: 8": ":2: scene 1 has seconds and frames",
        "frames: 2.5": ":2: frames=2.5 must be a whole number",
        "seconds: 1, context: 4": ":2: context=4 must be .* nearest is 3",
    }
    for extra, line in wrong.items():
        with pytest.raises(UserError, match=line):
            read(tmp_path, f"scenes:\n  - {{prompt: a, {extra}}}\n")


def test_scenes_that_start_with_the_same_clip_are_said():
    shots = [storyboard.Shot("a", 1.375, cut=True, seed=seed) for seed in (1, 2, 1)]
    (sentence,) = noted(shots)
    assert sentence.startswith("scene 3 starts with the clip of scene 1: ")


def test_a_story_of_more_than_ten_minutes_is_said_before_it_begins():
    assert noted([storyboard.Shot("a", 749.875)]) == []  # 999 windows
    (sentence,) = noted([storyboard.Shot("a", 7500.625)])
    assert sentence == "the story has 10,000 windows, 2.1 hours of video."


def noted(shots):
    sample = {"steps": 4, "choice_temperature": 1.0, "guidance": 1.0}
    defaults = Defaults(sample, {"foggy": {"negative": "fog" * 9}})
    chosen = [[resolve(defaults, **shot.sampler)] for shot in shots]
    plan, about = windows(shots, SPEC, 5), notes.about_text(ByteVocabulary(16).is_cut, None)
    return notes.of_story(shots, plan, chosen, SPEC.fps, about, has_text=True)


# --- lengths


def test_ten_scenes_of_a_second_and_a_tenth_are_eleven_seconds():
    plan = windows([storyboard.Shot("a", 1.1)] * 10, SPEC, 5)
    assert abs(plan[-1].stop / SPEC.fps - 11) <= 0.375
    assert len({window.scene for window in plan}) == 10


@pytest.mark.parametrize("least", [1.0, 0.05])  # windows per scene
@pytest.mark.parametrize("seed", range(20))
def test_every_scene_ends_with_the_window_nearest_to_the_sum_since_the_cut(seed, least):
    random = np.random.default_rng(seed)
    context = (1, 3, 5, 9)[seed % 4]
    window = SPEC.frames - context
    lengths, cuts = random.uniform(least * window / SPEC.fps, 5, 20), random.random(20) < 0.2
    cuts[0] = True
    shots = [
        storyboard.Shot(
            "a", max(float(seconds), 11 / 8) if cut and least == 1 else float(seconds), cut
        )
        for seconds, cut in zip(lengths, cuts.tolist(), strict=True)
    ]
    plan = windows(shots, SPEC, context)
    assert [w.start for w in plan] == [0, *[w.stop for w in plan[:-1]]]
    parts = segments(plan)
    assert len(parts) == len(shots)  # each at least one window
    begun = asked = 0.0
    for shot, (start, end) in zip(shots, parts, strict=True):
        begun, asked = (start, 0.0) if shot.cut else (begun, asked)
        frames = shot.seconds * SPEC.fps
        asked += frames
        if least == 1:
            assert abs(end - begun - asked) <= window / 2 + 1e-3
        one = SPEC.frames if shot.cut else window
        assert end - start == one or abs(end - start - frames) <= window + 1e-3


def test_a_scene_after_short_ones_lasts_as_long_as_it_asks():
    shots = [storyboard.Shot("a", seconds) for seconds in (0.1, 0.1, 0.1, 2.25)]
    start, end = segments(windows(shots, SPEC, 5))[-1]
    assert (end - start) / SPEC.fps == 2.25


def test_what_follows_a_hard_cut_does_not_depend_on_lengths_before_it():
    def after(seconds):
        shots = [
            storyboard.Shot("a", seconds),
            storyboard.Shot("b", 1.9, cut=True),
            storyboard.Shot("c", 1.1),
        ]
        plan = windows(shots, SPEC, 5)
        start = segments(plan)[1][0]
        return [(w.scene, w.start - start, w.stop - start) for w in plan if w.scene]

    assert len({tuple(after(seconds)) for seconds in np.arange(0.5, 4, 0.1)}) == 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_that_is_none_is_refused(seconds):
    with pytest.raises(UserError, match=rf"scene 1: {seconds} seconds must be above 0 and finite"):
        windows([storyboard.Shot("a", seconds)], SPEC, 5)


# --- null


def test_null_switches_off_what_the_story_sets(tmp_path):
    top = {
        "seed": 4, "cut": "hard", "steps": 9, "guidance": 3, "guidance_schedule": "linear",
        "choice_temperature": 2, "temperature": 0.5, "negative": "fog", "preset": "videos",
        "schedule": "cubic", "top_k": 3, "top_p": 0.5, "min_p": 0.1, "order": "frames",
        "view": "begun", "guidance_limit": 2, "guidance_min_p": 0.1, "guidance_interval": [0, 0.5],
        "seconds": 1,
    }  # fmt: skip
    lines = "".join(f"{key}: {value}\n" for key, value in top.items())
    none = ", ".join(f"{key}: null" for key in top if key != "seconds")
    story = read(tmp_path, f"{lines}scenes:\n  - prompt: a\n  - {{prompt: b, {none}}}\n")
    first, second = story.shots
    assert (first.seed, first.cut, first.sampler["negative"]) == (4, True, "fog")
    assert (second.seed, second.cut) == (7, False)  # the seed of the call
    assert set(second.sampler) == set(storyboard.SAMPLER)
    flags = {"negative": "rain", "guidance": 8.0}
    own = Defaults({"steps": 5, "choice_temperature": 1.0, "guidance": 2.0, "negative": "snow"})
    chosen = resolve(own, **flags | dict(second.sampler))
    assert chosen == resolve(own)
    assert not story.own_seeds


def test_null_of_the_context_is_the_models(tmp_path):
    assert read(tmp_path, "context: null\n" + SCENE).context == 5


def test_prompts_of_yaml_blocks_are_one_line(tmp_path):
    texts = [">\n      a red\n      circle\n", "|\n      a red circle\n", "' a red  circle '"]
    story = read(
        tmp_path, "seconds: 1\nscenes:\n" + "".join(f"  - prompt: {text}\n" for text in texts)
    )
    assert [shot.prompt for shot in story.shots] == ["a red circle"] * 3


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


def test_subtitles_show_marks_as_they_are_written():
    text = r"a <i>large</i> circle, 2 < 3, {\an8}up\Nand {left}"
    *_, line = render.srt([text], [(0, 11)], fps=8.0).splitlines()
    assert not re.search(r"<[a-z/]|[{}]|\\N", line)
    shown = line.replace("\N{WORD JOINER}", "")
    assert shown == text.replace("{", "(").replace("}", ")")
