"""`phenaki sample | story | fill | reconstruct` on a tiny model: what they write, and how made."""

import json
import shutil

import av
import jax.numpy as jnp
import numpy as np
import pytest
import script_calls
import tiny
from PIL import Image

from phenaki.commands import prompts
from phenaki.errors import UserError
from phenaki.io import checkpoint, media, sample_files
from phenaki.models.critic import TokenCritic
from phenaki.models.frozen import Tokenizer
from phenaki.pipeline import Phenaki
from phenaki.sampling.options import Critic
from phenaki.stories.generate import WindowCache

SPEC = tiny.phenaki().spec


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, a clip of 14 frames and a mask whose right half is white."""
    directory = tmp_path_factory.mktemp("files")
    tiny.phenaki().save(directory / "model")
    ramp = np.linspace(0, 1, 14)[:, None, None, None]
    video = np.broadcast_to(ramp, (14, SPEC.height, SPEC.width, 3))
    media.write_mp4(directory / "clip.mp4", video, SPEC.fps)
    mask = np.zeros((SPEC.height, SPEC.width), np.uint8)
    mask[:, SPEC.width // 2 :] = 255
    Image.fromarray(mask).save(directory / "mask.png")
    return directory


@pytest.fixture
def call(files, tmp_path, monkeypatch):
    """Runs a command on the model: the folder that it wrote. Its programs are those of `tiny`."""
    monkeypatch.setattr(Phenaki, "load", lambda directory: tiny.phenaki())
    monkeypatch.chdir(files)

    def run(command, *arguments):
        flags = ("--model=model", f"--output={tmp_path}", *arguments)
        script_calls.call(f"{command}.py", *flags)
        return tmp_path

    return run


@pytest.fixture
def written(monkeypatch):
    """The videos that commands write, before the codec."""
    videos = []

    def write(directory, given, *rest):
        videos.extend(given)
        return ["sample"] * len(given)

    monkeypatch.setattr(sample_files, "write", write)
    return videos


@pytest.mark.parametrize("given", ["--anew=5:8", "--anew=9:", "--mask=mask.png"])
def test_fill_keeps_all_but_what_it_samples(call, files, written, given):
    call("fill", "--video=clip.mp4", given, "--prompt=a", "--steps=1")
    (video,) = written
    clip = prompts.read_video(str(files / "clip.mp4"), SPEC, first=SPEC.frames) / np.float32(255)
    anew = np.zeros(clip.shape[:3], bool)
    if given.startswith("--mask"):
        anew[:, :, SPEC.width // 2 :] = True
    else:
        first, end = given.removeprefix("--anew=").split(":")
        anew[int(first) : int(end or SPEC.frames)] = True
    np.testing.assert_array_equal(video[~anew], clip[~anew])
    assert (video[anew] != clip[anew]).any(-1).mean() > 0.9


@pytest.mark.parametrize("given", ["--anew=8:5", "--anew=0:12", "--anew=5", "--anew=a:b"])
def test_fill_refuses_frames_that_the_clip_lacks(call, given):
    with pytest.raises(
        UserError, match=rf"{given}: must be first:end of the clip's frames 0 to 11"
    ):
        call("fill", "--video=clip.mp4", given)


def test_reconstruct_writes_video_tokens_and_decibel(call, files, capsys):
    output = call("reconstruct", "--video=clip.mp4")
    line = capsys.readouterr().out
    tokenizer = Tokenizer.load(files / "model")
    frames = prompts.read_video(str(files / "clip.mp4"), SPEC)
    tokens = np.load(output / "tokens.npz")["tokens"]
    assert tokens.shape == (2, *SPEC.grid())
    first = frames[None, : SPEC.frames] / np.float32(255)
    np.testing.assert_array_equal(tokens[:1], tokenizer.encode(first))
    video = np.concatenate([tokenizer.decode(clip[None])[0] for clip in tokens])[: len(frames)]
    error = np.mean((np.rint(video * 255) / 255 - frames / 255) ** 2)
    assert f"14 frames, 2 clips of 6x2x2 tokens, PSNR {-10 * np.log10(error):.1f} dB" in line
    for name, width in (("reconstruction", 1), ("comparison", 2)):
        with av.open(str(output / f"{name}.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.width == width * stream.height and stream.frames == 14


def test_a_tokenizer_by_itself_is_that_of_its_model(files):
    tokenizer, model = Tokenizer.load(files / "model"), tiny.phenaki()
    video = np.random.default_rng(0).random((2, 5, SPEC.height, SPEC.width, 3), np.float32)
    np.testing.assert_array_equal(tokenizer.encode(video), model.encode(video))
    np.testing.assert_array_equal(
        tokenizer.reconstruct(video), tokenizer.decode(tokenizer.encode(video))
    )
    np.testing.assert_allclose(tokenizer.reconstruct(video), model.reconstruct(video), atol=1e-6)
    with pytest.raises(UserError, match=r"values from 0 to 255; they must lie in \[0, 1\]"):
        tokenizer.encode(np.stack([np.zeros((1, 16, 16, 3)), np.full((1, 16, 16, 3), 255.0)]))
    with pytest.raises(UserError, match=r"frames=4 must be 1 \+ a multiple of 2"):
        tokenizer.encode(video[:, :4])
    with pytest.raises(UserError, match="must lie in 0 to 31"):
        tokenizer.decode(np.full((1, 1, 2, 2), 32))


def facts_of(path):
    """(title, facts) in the metadata of an mp4, gif or png."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return container.metadata.get("title"), json.loads(container.metadata["comment"])
    with Image.open(path) as image:
        comment = image.info["comment"]
        return image.info.get("title"), json.loads(comment)


def test_samples_say_how_they_were_made_in_the_file_and_beside_it(call):
    flags = ("--prompt=a “b”", "--prompt=c", "--seed=7", "--steps=1", "--top_k=9", "--guidance=1")
    output = call("sample", *flags)
    for row, prompt in enumerate(["a “b”", "c"]):
        facts = json.loads((output / f"sample_{row}.json").read_text())
        assert (facts["prompt"], facts["row"], facts["seed"]) == (prompt, row, 7)
        assert facts["model"] == tiny.phenaki().fingerprint
        options = facts["options"]
        assert (options["steps"], options["top_k"], options["guidance"]) == (1, 9, 1.0)
        assert "--seed=7" in facts["command"]
        for suffix in ("mp4", "gif", "png"):
            title, inside = facts_of(output / f"sample_{row}.{suffix}")
            assert inside == facts
            assert title == (None if suffix == "gif" else prompt)


def test_a_story_says_how_it_was_made_and_keeps_no_gif_of_another(
    call, tmp_path_factory, monkeypatch
):
    story = tmp_path_factory.mktemp("story") / "story.yaml"
    story.write_text(
        "scenes:\n  - {prompt: a, seconds: 1.4, seed: 3}\n  - {prompt: b, seconds: 0.7}"
    )
    output = call("story", f"--story={story}", "--steps=1", "--seed=7", "--context=3")
    made = json.loads((output / "story_report.json").read_text())["made"]
    assert made["model"] == tiny.phenaki().fingerprint
    assert (made["context"], [scene["seed"] for scene in made["scenes"]]) == (3, [3, 7])
    assert [scene["options"]["steps"] for scene in made["scenes"]] == [1, 1]
    assert facts_of(output / "story.mp4") == (None, made)
    assert facts_of(output / "story.gif") == (None, made)
    assert facts_of(output / "story.png") == (None, made)
    monkeypatch.setattr(sample_files, "GIF_FRAMES", 3)
    call("story", f"--story={story}", "--steps=1", "--seed=7", "--context=3")
    assert not (output / "story.gif").exists()  # this one is too long


@pytest.mark.parametrize(
    ("second", "line"),
    [
        ("order: calibrated", "scene 2: order='calibrated': this model has none in"),
        ("image: none.png, cut: hard", r"none\.png: "),
    ],
)
def test_what_a_later_scene_cannot_have_is_found_before_the_first_window(
    call, tmp_path, tmp_path_factory, second, line
):
    folder = tmp_path_factory.mktemp("story")
    (folder / "none.png").write_text("no image")
    scenes = f"- {{prompt: a, seconds: 0.7}}\n- {{prompt: b, seconds: 0.7, {second}}}\n"
    (folder / "story.yaml").write_text(f"scenes:\n{scenes}")
    with pytest.raises(UserError, match=line):
        call("story", f"--story={folder / 'story.yaml'}", "--steps=1", "--seed=7")
    assert not list(tmp_path.rglob("*.npz"))


@pytest.fixture
def contents():
    """A folder -> {name: bytes} of the files of a take in it."""

    def read(folder):
        files = (path for path in folder.iterdir() if path.is_file())
        return {path.name: path.read_bytes() for path in files if path.name[0] != "."}

    return read


def test_another_story_in_the_folder_keeps_the_one_before(call, contents, capsys):
    def tell(*flags):
        output = call("story", *flags, "--steps=1", "--seed=7")
        return output, contents(output), capsys.readouterr().err

    output, first, notes = tell("--scene=a@0.7")
    assert "is now in" not in notes and {"story.mp4", "story_report.json"} <= first.keys()
    _, again, notes = tell("--scene=a@0.7")
    assert "is now in" not in notes and again["story.mp4"] == first["story.mp4"]
    _, second, notes = tell("--scene=b@0.7")
    assert f"note: the story that was in {output} is now in {output}/take_1.\n" in notes
    assert contents(output / "take_1") == again and second["story.mp4"] != first["story.mp4"]
    (output / "take_1/story_report.json").unlink()  # as if ended while it moved them
    assert tell("--scene=a@1.4")[2].count(f"{output}/take_1.\n") == 1
    assert contents(output / "take_1") == second
    assert tell("--scene=a@0.7", "--reanchor")[2].count(f"{output}/take_2.\n") == 1


def test_another_reconstruction_in_the_folder_keeps_the_one_before(
    call, files, contents, tmp_path_factory, capsys
):
    other = tmp_path_factory.mktemp("other") / "other.mp4"
    shutil.copy(files / "clip.mp4", other)
    for _ in range(2):
        output = call("reconstruct", "--video=clip.mp4")
    assert not (output / "take_1").exists()
    first = contents(output)
    call("reconstruct", f"--video={other}")
    assert f"note: the reconstruction that was in {output} is now in {output}/take_1.\n" in (
        capsys.readouterr().err
    )
    assert contents(output / "take_1") == first
    assert json.loads((output / "reconstruction.json").read_text())["video"] == str(other)


def test_a_critic_scores_the_windows_of_a_story_and_names_them(call, monkeypatch):
    network = TokenCritic(
        grid=SPEC.grid(), codebook=32, width=16, depth=1, heads=2, mlp_dim=16, text_dim=None,
        dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    params = tiny.random_params(network, jnp.zeros((1, SPEC.tokens()), jnp.int32))
    monkeypatch.setattr(Phenaki, "load_critic", lambda model, path: Critic(network, params, path))
    found = {}
    for critic in (None, "one", "two"):
        flags = ["--scene=a@1.4", "--steps=3", *([f"--critic={critic}"] if critic else [])]
        output = call("story", *flags)
        report = json.loads((output / "story_report.json").read_text())
        assert report["made"]["scenes"][0]["options"]["critic"] == critic
        assert report["windows_made"] == 1  # another critic, another window
        found[critic] = {path.stem for path in (output / "windows").iterdir()}
    (plain,), (first,) = found[None], found["one"] - found[None]
    cache = WindowCache(output / "windows")
    assert (cache.read(plain)[1] != cache.read(first)[1]).any()
    assert call("story", *flags) and len(list((output / "windows").iterdir())) == 3


def test_unconditional_samples_have_no_text(call, written):
    call("sample", "--unconditional", "--steps=2", "--seed=3")
    expected = tiny.phenaki().generate([None], seed=3, steps=2)
    np.testing.assert_array_equal(written[0], expected[0])


def test_a_model_without_text_samples_without_a_prompt_and_takes_none(
    call, written, tmp_path, monkeypatch
):
    model = tiny.unconditional()
    model.save(tmp_path / "alone")
    monkeypatch.setattr(Phenaki, "load", lambda directory: model)
    given = (f"--model={tmp_path / 'alone'}", f"--output={tmp_path / 'out'}", "--steps=2")
    script_calls.call("sample.py", *given, "--seed=3")
    np.testing.assert_array_equal(written[0], model.generate([None], seed=3, steps=2)[0])
    with pytest.raises(UserError, match="prompt='a circle': this model has no text encoder"):
        script_calls.call("sample.py", *given, "--prompt=a circle")
    assert len(written) == 1


def test_the_critic_that_a_model_loads_has_a_fingerprint(monkeypatch):
    from phenaki.models import load

    config = tiny.maskgit_config()
    config.generator = "g"
    config.video, config.tokenizer = tiny.whole_config().video, tiny.whole_config().tokenizer
    params = {"w": np.ones(2)}
    monkeypatch.setattr(checkpoint, "load_critic", lambda directory: (params, config))
    monkeypatch.setattr(load.factory, "critic", lambda config: None)
    one = load.load_critic("x", "g").fingerprint
    params["w"] = np.zeros(2)
    assert len(one) == 16 and load.load_critic("x", "g").fingerprint != one
