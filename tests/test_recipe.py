"""docs/recipe.md: every command runs on three tiny data sets, and the arithmetic is right."""

import io
import json
import os
import re
import shlex
import tarfile
from pathlib import Path
from unittest import mock

import feature_stand_ins
import jax
import numpy as np
import pytest
import script_calls
from numbered_clips import numbered
from PIL import Image

from phenaki.evaluation import extractors
from phenaki.io import media
from phenaki.train import logs, loop

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/recipe.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
VIDEO = "video.height=16 video.width=16"
TOKENIZER = (
    "tokenizer.width=16 tokenizer.code_dim=4 tokenizer.space_depth=1 tokenizer.time_depth=1 "
    "tokenizer.heads=2 tokenizer.mlp_dim=32 tokenizer.codebook=32"
)
LOSSES = "loss.adversarial=0.0 loss.perceptual=0.0 loss.video_perceptual=0.0"
RUN = "train.steps=1 train.log_every=1 train.save_every=1 train.sample_every=2 remat=none"
MODEL = "model.codebook=32 model.depth=1 model.width=16 model.mlp_dim=32 model.heads=2"
TEXT = (
    "text.vocabulary=bytes text.length=8 text.vocab_size=259 text.width=16 text.heads=2 "
    "text.head_dim=8 text.layers=1 text.mlp_dim=32 text.weights=random"
)
SAMPLER = "sample.steps=2 train.sample_count=0"
# What makes each script's commands small: other flags, and fields of its config.
TINY = {
    "prepare_data": ("--size=16 --workers=1 --validation=0.5", ""),
    "convert_weights": ("", ""),
    "train_cvivit": ("", f"{VIDEO} {TOKENIZER} {LOSSES} {RUN} data.batch=8"),
    "encode_dataset": ("--batch=8", f"{MODEL} {TEXT}"),
    "train_maskgit": ("", f"{MODEL} {TEXT} {SAMPLER} {RUN}"),
    "evaluate": ("--batch=4 --limit=4", ""),
    "sample": ("--steps=2", ""),
}


def small(command):
    """(script, arguments) of a command of the page, with tiny networks and short runs."""
    script, *arguments = command
    arguments = [re.sub(r"=(configs/)", rf"={ROOT}/\1", argument) for argument in arguments]
    if script == "scripts/plan.py":
        fields = [f"--stage1.{field}" for field in f"{VIDEO} {TOKENIZER}".split()]
        fields += [f"--config.{field}" for field in f"{MODEL} {TEXT}".split()]
        if not any(argument.startswith("--stage1=") for argument in arguments):
            fields = [f"--config.{field}" for field in f"{VIDEO} {TOKENIZER} {LOSSES}".split()]
        return script, [*arguments, "--topology=v5e:2x2", *fields]
    own, fields = TINY[Path(script).stem]
    return script, [*arguments, *own.split(), *(f"--config.{field}" for field in fields.split())]


def write_inputs(root):
    """LAION, IMAGES and CLIPS of the page: 12 images in a tar, 6 files, 6 videos."""

    def jpeg(n):
        buffer = io.BytesIO()
        Image.fromarray(numbered(n)).save(buffer, "JPEG")
        return buffer.getvalue()

    for name in ("LAION", "IMAGES", "CLIPS"):
        (root / name).mkdir()
    with tarfile.open(root / "LAION/00000.tar", "w") as tar:
        for n in range(12):
            facts = json.dumps({"caption": f"image {n}", "NSFW": "UNLIKELY"}).encode()
            content = {"jpg": jpeg(n), "txt": f"image {n}".encode(), "json": facts}
            for suffix, data in content.items():
                member = tarfile.TarInfo(f"{n:09d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    for n in range(6):
        (root / f"IMAGES/{n}.jpg").write_bytes(jpeg(50 + n))
    for n in range(6):
        frames = np.stack([numbered(100 + n)] * 22)
        media.write_mp4(root / f"CLIPS/{n}.mp4", frames, fps=8)
    for name, suffix in (("IMAGES", "jpg"), ("CLIPS", "mp4")):
        rows = "".join(f"{n}.{suffix},number {n}\n" for n in range(6))
        (root / name / "captions.csv").write_text(f"file,caption\n{rows}")


@pytest.fixture
def one_device(monkeypatch):
    """A step on eight simulated devices would compile for longer."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *arguments: devices)
    monkeypatch.setattr(jax, "local_devices", lambda *arguments, **fields: devices)


@pytest.fixture
def no_samples(monkeypatch):
    """Samples of a training run: what they show is sampled again below."""

    def run(*arguments, sample, of=loop.run, **fields):
        return of(*arguments, **fields)

    monkeypatch.setattr(loop, "run", run)


@pytest.fixture
def networks(monkeypatch):
    """Feature networks that need no weights."""
    made = feature_stand_ins.networks()
    made["clip"] = lambda video, captions: {"clip_score": video.mean((1, 2, 3, 4))}
    monkeypatch.setattr(extractors, "build", feature_stand_ins.builder(made))


# As ml_collections loads config files.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_every_command_of_the_page_runs(
    tmp_path, monkeypatch, capsys, one_device, no_samples, networks
):
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    ran = []
    for command in COMMANDS:
        script, arguments = small(command)
        with mock.patch.dict(os.environ):  # a plan sets variables for its own process
            script_calls.call(script, *arguments)
        ran.append(Path(script).stem)
    assert ran.count("prepare_data") == ran.count("encode_dataset") == 3
    splits = {"laion": ["image"], "images": ["image"], "video_text": ["video"]}
    for name, kinds in splits.items():
        prepared = json.loads(Path(f"data/{name}/manifest.json").read_text())["records"]
        tokens = json.loads(Path(f"data/codes/{name}/codes.json").read_text())["records"]
        assert prepared == tokens and {split.split("_")[0] for split in tokens} == set(kinds)
    config = json.loads(Path("runs/t2v/config.json").read_text())
    assert (config["data"]["batch"], config["data"]["image_batch"]) == (416, 96)
    (line,) = logs.read("runs/t2v")
    assert np.isfinite([line["video/loss"], line["image/loss"]]).all()
    table = json.loads(Path("runs/evaluation/table2-video_80.json").read_text())
    assert {score["name"] for score in table["records"]} == {"fid", "fvd", "clip_score"}
    assert Path("runs/evaluation/table2-image_80.json").is_file()
    assert Path("out/sample_0.mp4").is_file()
    output = capsys.readouterr().out
    assert "21.4" in output and "29.4" in output  # the paper's FID of both rows
    assert output.count("chip-hours") == 2


UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "ms": 1e-3}
SUMS = re.findall(r"`([^`]* = [^`]*)`", PAGE)


def value(text):
    """Of "15 M x 163 G / 2" and the like."""
    units = "|".join(sorted(UNITS, key=len, reverse=True))
    text = re.sub(rf"([\d.]+) ({units})\b", lambda m: f"({m[1]} * {UNITS[m[2]]})", text)
    assert re.fullmatch(r"[\d.e+\-* /()]+", text := text.replace("x", "*")), text
    return eval(text)


@pytest.mark.parametrize("line", SUMS)
def test_the_arithmetic_is_right(line):
    left, right = line.split(" = ")
    assert value(left) == pytest.approx(value(right), rel=0.02)


@pytest.mark.parametrize("stage", ["cvivit", "maskgit"])
def test_the_times_are_those_of_the_plan(stage):
    plan = (ROOT / "docs/pods.md").read_text()
    (row,) = [line for line in plan.splitlines() if line.startswith(f"| `{stage}:t2v` | v5e:16x16")]
    rate, days, hours = (cell.strip() for cell in row.split("|")[-4:-1])
    section = PAGE.split(f"## {2 if stage == 'cvivit' else 4}.")[1].split("\n## ")[0]
    (own,) = [line for line in section.splitlines() if line.startswith("| v5e:16x16, 256 chips")]
    assert f"| {rate} |" in own and f"= {hours.replace(',', '')}`" in own
    assert float(re.search(r"86400 = ([\d.]+)`", own)[1]) == pytest.approx(float(days), abs=0.05)


def test_the_counts_are_those_of_the_config():
    from configs import maskgit

    data = maskgit.get_config("t2v,mix=80/10/10").data
    assert f"{data.batch}\nclips and {data.image_batch // 2} images of each set" in PAGE
    assert len(SUMS) > 20 and len(COMMANDS) == 14
