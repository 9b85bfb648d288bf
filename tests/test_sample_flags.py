"""Every pair of flags of `phenaki sample`: each is used, or refused or noted by its name."""

import importlib.util
import itertools
import types
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from phenaki import pipeline
from phenaki.commands import prompts, stories
from phenaki.data import batches
from phenaki.data.prepare import video
from phenaki.data.shapes import captions
from phenaki.data.shapes.world import World
from phenaki.errors import UserError
from phenaki.io import images, media, sample_files
from phenaki.sampling import flag_rules
from phenaki.sampling.options import Critic, Defaults, Student
from phenaki.stories import drift, generate, render
from phenaki.text.vocabulary import ByteVocabulary
from phenaki.types import VideoSpec

ROOT = Path(__file__).parents[1]
SPEC = VideoSpec(frames=11, height=16, width=16, fps=8.0, patch=(2, 8, 8))
STORY = "scenes:\n  - {prompt: a, seconds: 1.4}\n  - {prompt: b, seconds: 0.75}\n"
# Each value differs from what is sampled without the flag.
VALUES = {
    "prompt": "a square",
    "scene": "a circle@1.4",
    "story": "story.yaml",
    "image": "first.png",
    "video": "before.mp4",
    "seed": "5",
    "frames": "1",
    "unconditional": "true",
    "context": "1",
    "temperature": "0.5",
    "top_k": "3",
    "top_p": "0.5",
    "schedule": "linear",
    "guidance_schedule": "linear",
    "steps": "7",
    "guidance": "1.5",
    "choice_temperature": "2.5",
    "guidance_limit": "2",
    "guidance_min_p": "0.1",
    "guidance_interval": "0,0.25",
    "min_p": "0.1",
    "order": "middle",
    "view": "begun",
    "negative": "fog",
    "preset": "other",
    "critic": "critic",
    "critic_guidance": "0.5",
    "critic_noise": "0.5",
    "student": "student",
    "scale": "3",
    "reroll": "1",
    "preview": "true",
    "windows": "elsewhere",
    "reanchor": "true",
    "best_of": "3",
    "score": "detector",
    "weights": "downloaded",
}


class Model:
    """Records the calls of the script instead of sampling."""

    has_text, context, spec = True, 5, SPEC
    vocabulary = ByteVocabulary(64)
    defaults = Defaults(
        {"steps": 4, "guidance": 0.5, "choice_temperature": 1.0},
        {"other": {"steps": 5, "guidance": 3.0, "choice_temperature": 4.0, "top_k": 9}},
    )
    fingerprint = "0" * 16
    config = types.SimpleNamespace(data=types.SimpleNamespace(source="tfds"))

    def __init__(self, log):
        self.log = log

    def load_critic(self, path):
        return Critic(path, {})

    def load_student(self, path):
        return Student(path, {})

    def check_texts(self, prompts, chosen):
        pass

    def generate(self, prompts, **call):
        self.log.append(("generate", tuple(prompts), repr(sorted(call.items()))))
        return np.zeros((len(prompts), call["frames"] or 11, 16, 16, 3), np.float32)

    def animate(self, given, prompts, **call):
        self.log.append(("animate", given.mean(), tuple(prompts), repr(sorted(call.items()))))
        return np.zeros((len(prompts), 11, 16, 16, 3), np.float32)

    def follow(self, given, prompts, **call):
        facts = (given.mean(), given.shape, tuple(prompts), repr(sorted(call.items())))
        self.log.append(("follow", *facts))
        return np.zeros((len(prompts), 6, 16, 16, 3), np.float32)


@pytest.fixture(scope="module")
def script():
    """The module commands/sample.py; its flags are removed afterwards."""
    importlib.import_module("absl.app")  # has flags of its own
    before = set(flags.FLAGS)
    found = importlib.util.spec_from_file_location(
        "sample_script", ROOT / "phenaki/commands/sample.py"
    )
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.OWN = set(flags.FLAGS) - before
    yield module
    flags.FLAGS.remove_flag_values({name: flags.FLAGS[name] for name in module.OWN})


@pytest.fixture
def run(script, tmp_path, monkeypatch, capsys):
    """argv -> (what the script sampled and wrote, its notes); UserErrors pass."""
    log: list = []
    (tmp_path / "story.yaml").write_text(STORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline.Phenaki, "load", lambda path: Model(log))
    pixels = np.full((16, 16, 3), 0.5, np.float32)
    monkeypatch.setattr(images, "read_frame", lambda path, *rest: pixels)
    clip = video.Clip(0.0, np.full((1, 16, 16, 3), 77, np.uint8), (16, 16))
    monkeypatch.setattr(video, "clips", lambda path, **sizes: iter([clip] * 4))
    monkeypatch.setattr(drift, "distance", lambda weights: log.append(weights) or (None, "d"))
    monkeypatch.setattr(batches, "known_world", lambda model: World())
    monkeypatch.setattr(captions, "words", lambda world: {"a", "b", "x", "square", "circle", "fog"})
    monkeypatch.setattr(stories, "_print", lambda report, output: None)
    monkeypatch.setattr(media, "write_gif", lambda *call: None)

    def write(directory, videos, prompts, fps, scale, facts):
        log.append(("files", [np.asarray(v).mean() for v in videos], len(videos[0]), scale))
        return [str(number) for number in range(len(videos))]

    def tell(model, storyboard, plan, output, cache, *, options, scale, **rest):
        facts = (
            storyboard,
            plan,
            output,
            cache.directory,
            scale,
            options.key(),
            options.candidates,
        )
        log.append(repr(facts))
        return {}

    monkeypatch.setattr(sample_files, "write", write)
    monkeypatch.setattr(render, "render", tell)
    part = types.SimpleNamespace(frames=np.zeros((11, 16, 16, 3)))
    monkeypatch.setattr(generate, "generate_windows", lambda *call: [part])

    def call(*given):
        log.clear()
        (tmp_path / "out/rerolls.json").unlink(missing_ok=True)
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        flags.FLAGS(["sample.py", "--model=m", "--output=out", *given])
        capsys.readouterr()
        script.main([])
        noted = [x for x in capsys.readouterr().err.splitlines() if x.startswith("note: ")]
        return repr(log), noted

    return call


def flag(name):
    return f"--{name}={VALUES[name]}"


def result(run, *names):
    try:
        return run(*map(flag, names))
    except UserError as error:
        assert "\n" not in str(error)
        assert any(f"--{name}" in str(error) for name in names), error
        return None


@pytest.mark.parametrize("task", flag_rules.TASKS)
def test_of_every_pair_of_flags_each_is_used_or_refused_or_noted(run, task):
    assert result(run, task) is not None
    others = [name for name in VALUES if name != task]
    alone = {name: result(run, task, name) for name in others}
    for pair in itertools.combinations(others, 2):
        both = result(run, task, *pair)
        if both is None:
            continue
        for name, other in (pair, pair[::-1]):
            without = alone[other]
            used = without is None or both[0] != without[0]
            assert used or any(f"--{name}" in note for note in both[1]), (task, name, other)


def test_every_flag_of_the_script_is_in_a_pair(script):
    assert script.OWN - {"model", "output"} == set(VALUES)
    assert set(flag_rules.USED_BY) < script.OWN


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((), r"nothing to sample: give --prompt or --unconditional or --scene or --story"),
        (
            ("--image=a.png", "--scene=a@1"),
            r"--image=a\.png: is used with --prompt or .* only; an im",
        ),
        (
            ("--video=a.mp4", "--story=story.yaml"),
            r"--video=a\.mp4: is used with --prompt or .* only",
        ),
        (("--prompt=a", "--image=a.png", "--video=b.mp4"), r"both are the beginning"),
        (("--prompt=a", "--image=a.png", "--frames=5"), r"--image=a\.png and --frames=5"),
        (("--scene=a@1", "--score=seam"), r"--score=seam: has no effect without --best_of"),
        (("--scene=a@1", "--best_of=1", "--score=seam"), r"--score=seam: has no effect without"),
        (("--prompt=a", "--context=3"), r"--context=3: has no effect without --video or --scene"),
        (("--scene=a@1", "--context=4"), r"--context=4 must be 1 \+ a multiple of 2 .* is 3"),
        (("--prompt=a", "--unconditional"), r"text or none; give one of them"),
        (("--scene=a@1", "--reroll=1"), r"--reroll=1: is used with --story only"),
        (("--scene=a@1", "--preview", "--steps=9"), r"--preview and --steps=9"),
        (("--prompt=a", "--guidance_interval=0,b"), r"=0,b must be two numbers, such as 0,0\.25"),
        (
            ("--unconditional", "--guidance_limit=2"),
            r"--unconditional and --guidance_limit=2.0: with",
        ),
        (("--prompt=a", "--student=s", "--critic=c"), r"--student=s and --critic=c: a student's"),
        (("--prompt=a", "--student=s", "--guidance=1"), r"a student is not guided; leave one of"),
        (("--prompt=a", "--student=s", "--preset=other"), r"of the model's own sampler; leave one"),
        (
            ("--prompt=a", "--student=s", "--image=a.png"),
            r"draws whole clips, or continues --video",
        ),
        (("--scene=a@nan",), r"scene 1: nan seconds must be above 0 and finite"),
        (("--scene=a@inf",), r"scene 1: inf seconds must be above 0 and finite"),
    ],
)
def test_what_does_not_go_together_is_refused(run, given, line):
    with pytest.raises(UserError, match=line):
        run(*given)


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (("--prompt=a", "--negative=b", "--guidance=0"), "negative has no effect: guidance is 0."),
        (("--scene=a@1.4", "--negative=b", "--guidance=0"), "scene 1: negative has no effect: "),
        (
            ("--prompt=a", "--choice_temperature=2", "--steps=1"),
            "choice_temperature has no effect: one step keeps all tokens.",
        ),
        (
            ("--prompt=a", "--choice_temperature=2", "--critic=c"),
            "choice_temperature has no effect: a critic chooses the tokens.",
        ),
        (("--prompt=a", "--scene=b@1.4", "--frames=1"), "--frames=1 has no effect on --scene."),
        ((f"--prompt={'a ' * 70}",), "the text encoder cuts the end of 'a a"),
        (("--prompt=a", f"--negative={'b ' * 70}"), "the text encoder cuts the end of 'b b"),
        (("--scene=a@1.4", f"--negative={'b ' * 70}"), "the text encoder cuts the end of 'b b"),
        (("--prompt=a", "--guidance=-1"), "guidance=-1 leads away from the prompt; 0 is none."),
        (("--scene=a@1.4", "--guidance=1000"), "scene 1: guidance=1000 breaks frames: "),
        (("--prompt=a lion, a square",), "trained on no caption with 'lion': 'a lion, a square'."),
        (("--scene=a lion@1.4",), "scene 1: the model was trained on no caption with 'lion'"),
    ],
)
def test_what_has_no_effect_and_what_is_cut_is_noted_once(run, given, note):
    _, noted = run(*given)
    assert [note in line for line in noted] == [True]


def test_a_preset_whose_options_are_all_given_is_noted(run, monkeypatch):
    presets = {"other": {"steps": 5, "guidance": 3.0}}
    monkeypatch.setattr(Model, "defaults", Defaults(Model.defaults.sample, presets))
    given = ("--preset=other", "--steps=3")
    assert not run("--prompt=a", *given)[1]
    for task in ("--prompt=a", "--scene=a@1.4"):
        _, (note,) = run(task, *given, "--guidance=1")
        assert "--preset=other has no effect" in note


def test_a_flag_that_every_scene_sets_itself_is_noted(run, tmp_path):
    path = tmp_path / "story.yaml"
    path.write_text("steps: 3\nseed: 2\n" + STORY)
    _, noted = run("--story=story.yaml", "--steps=9", "--seed=4", "--guidance=2")
    assert noted == [
        "note: --steps has no effect: every scene of the story sets steps.",
        "note: --seed has no effect: every scene of the story sets seed.",
    ]
    assert not run("--story=story.yaml")[1]
    path.write_text(STORY.replace("0.75}", "0.75, steps: 3, seed: 2}"))
    assert not run("--story=story.yaml", "--steps=9", "--seed=4")[1]


def test_a_given_video_is_kept_whole_in_front_of_what_is_added(run, script, monkeypatch):
    frames = np.arange(30, dtype=np.uint8)
    shown = [
        video.Clip(0.0, np.full((1, 16, 16, 3), frame, np.uint8), (24, 40)) for frame in frames
    ]
    monkeypatch.setattr(video, "clips", lambda path, **sizes: iter(shown))
    written = []

    def write(directory, videos, *rest):
        written.extend(videos)
        return ["sample_0"]

    monkeypatch.setattr(sample_files, "write", write)
    _, noted = run("--prompt=a", "--video=x.mp4")
    assert noted == ["note: x.mp4: 40x24 px resized and center-cropped to 16x16."]
    assert (written[0][:, 0, 0, 0] == [*frames, *[0] * 6]).all()
    monkeypatch.setattr(prompts, "VIDEO_FRAMES", 20)
    _, noted = run("--prompt=a", "--video=x.mp4")
    assert noted[1:] == ["note: x.mp4: the last 20 of its 30 frames are kept."]
    assert (written[1][:, 0, 0, 0] == [*frames[10:], *[0] * 6]).all()


def test_prompts_and_scenes_are_cleaned_as_captions_are(run):
    for one, other in (
        ("--prompt=a b", "--prompt= a \n\tb "),
        ("--scene=a b@1", "--scene=a  b @1"),
    ):
        assert run(one)[0] == run(other)[0]
