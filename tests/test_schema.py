"""What config fields and sampling options may be: one table, from which checks and pages come."""

import copy
import dataclasses
import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from configs import baselines, critic, cvivit, maskgit
from phenaki.blocks import attention_impl, quantizer, transformer
from phenaki.commands import training_flags
from phenaki.data import clips
from phenaki.data.shapes.world import World
from phenaki.errors import UserError
from phenaki.io import checkpoint, migrations
from phenaki.losses import gan, masked_tokens
from phenaki.models import discriminator, factory
from phenaki.reports import config_page
from phenaki.sampling import guidance, options, orders, schedules, views
from phenaki.schema import config as schema
from phenaki.schema import help, networks, rules, sampling
from phenaki.schema.check import ALL, check, check_whole
from phenaki.text.t5 import T5Encoder
from phenaki.train import critic as critic_stage
from phenaki.train import tokenizer as stage_1

MODULES = {
    "tokenizer": (cvivit, baselines),
    "maskgit": (maskgit,),
    "critic": (critic,),
}
PRESETS = [
    (kind, module.get_config(name).to_dict())
    for kind, modules in MODULES.items()
    for module in modules
    for name in module.VARIANTS
]
PRESETS += [("maskgit", maskgit.get_config(name).to_dict()) for name in ("small,mix=50/50,"
            "text=t5_1_1_small", "demo,mix=80/10/10", "laptop,text=none")]  # fmt: skip


def changed(fields, path, value):
    fields = copy.deepcopy(fields)
    section = fields
    *above, name = path.split(".")
    for key in above:
        section = section[key]
    section[name] = value
    return fields


@pytest.mark.parametrize(("kind", "fields"), PRESETS)
def test_every_field_of_every_preset_has_a_row_and_obeys_it(kind, fields):
    check_whole(kind, fields)
    with pytest.raises(UserError, match=r"^config\.optim\.wramup: no such field; did you mean "):
        check_whole(kind, changed(fields, "optim.wramup", 1))
    less = copy.deepcopy(fields)
    del less["optim"]["clip"]
    with pytest.raises(UserError, match=r"^config\.optim\.clip: is missing; it must be number"):
        check_whole(kind, less)


STAGE_1, STAGE_2 = cvivit.get_config("mit").to_dict(), maskgit.get_config("t2v").to_dict()
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("data.batch", -8, r"must be at least 0\."),
        ("data.batch", 8.5, r"must be a whole number; nearest is 8\."),
        ("data.batch", True, r"must be a whole number\."),
        ("data.batch", "8", r"must be a whole number\."),
        ("data.source", "moving_shape", r"must be one of .*; did you mean moving_shapes\?"),
        ("tokenizer.heads", 0, r"must be at least 1\."),
        ("tokenizer.patch", (2, 8), r"must be 3 values, such as \(2, 8, 8\)\."),
        ("tokenizer.patch", 8, r"must be 3 values"),
        ("tokenizer.codebook", 1, r"must be at least 2\."),
        ("video.fps", NAN, r"must be a finite number\."),
        ("video.fps", 0, r"must be at least 0\.01\."),
        ("video.fps", 1000, r"must be below 1000\."),
        ("optim.rate", 10**400, r"must be at most"),
        ("data.world", {"speed": NAN}, r"must be a finite number\."),
        ("train.steps", -3, r"must be at least 1\."),
        ("train.sample_every", 0, r"must be at least 1\."),
        ("seed", -1, r"must lie in \[0, 2\*\*32 - 1\]; nearest is 0\."),
        ("seed", 2**32, r"nearest is 4294967295\."),
        ("optim.rate", -1, r"must be above 0\."),
        ("optim.rate", NAN, r"must be a finite number\."),
        ("optim.rate", "1e-3", r"must be a number\."),
        ("optim.b1", 1.0, r"must be below 1\."),
        ("optim.ema", 1, r"must be below 1\."),
        ("optim.decay", 0, r"must be at least 1\."),
        ("optim.clip", INF, r"must be a finite number\."),
        ("loss.perceptual", -0.1, r"must be at least 0\."),
        ("gan.frames", 0, r"must be at least 1\."),
        ("gan.r1_every", 0, r"must be at least 1\."),
        ("gan.loss", "wgan", r"must be one of non_saturating, hinge\."),
        ("features.i3d", "logits_mean", r"must be 1 or more values"),
        ("features.i3d_size", 300, r"must be at most 224\."),
        ("guard.hang_minutes", -1.0, r"must be at least 0\."),
        ("mesh.fsdp", 0, r"must be at least 1, or -1\."),
        ("dtype", "float16", r"did you mean bfloat16\?"),
        ("video", 3, r"must be a section of fields\."),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_path(path, value, rule):
    fields = changed(STAGE_1, path, value)
    with pytest.raises(UserError, match=rf"^config\.{path}\S*=.* {rule}"):
        check_whole("tokenizer", fields)


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("drop_text", 1.5, r"must be at most 1\."),
        ("model.dropout", 1.0, r"must be below 1\."),
        ("model.heads", 0, r"must be at least 1\."),
        ("text.cached", 1, r"must be True or False\."),
        ("text.relpos_std", -1.0, r"must be at least 0\."),
        ("mask.schedule", "late", r"must be one of cosine, uniform"),
        ("sample.steps", 0, r"must be at least 1\."),
        ("sample.steps", 10**6, r"must be at most 10000\."),
        ("sample.guidance", INF, r"must be a finite number\."),
        ("sample.temperature", "hot", r"must be a number, or several of: number, at least 0\."),
        ("sample.temperature", (), r"must be 1 or more values\."),
        ("sample.continued", {"steps": -1}, r"must be at least 1\."),
        ("presets.nuwa.steps", 0, r"must be at least 1\."),
        ("presets.nuwa.temperature", (1.0, NAN), r"must be a finite number\."),
        ("train.sample_count", -1, r"must be at least 0\."),
    ],
)
def test_so_is_one_of_stage_2(path, value, rule):
    with pytest.raises(UserError, match=rf"^config\.{path}\S*=.* {rule}"):
        check_whole("maskgit", changed(STAGE_2, path, value))


def test_models_and_training_look_before_they_build(tmp_path):
    config = tiny.tokenizer_config(data={"batch": -8})
    with pytest.raises(UserError, match=r"^config\.data\.batch=-8 must be at least 0\.$"):
        stage_1.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"^config\.tokenizer\.heads=0 must be at least 1\.$"):
        factory.tokenizer(ConfigDict(changed(STAGE_1, "tokenizer.heads", 0)))


def test_a_stored_config_is_checked_with_its_place_and_may_have_fields_of_other_versions(tmp_path):
    fields = tiny.whole_config().to_dict()
    checkpoint.save_config(tmp_path, fields | {"later": {"field": 1}})
    assert checkpoint.load_config(tmp_path).later.field == 1
    checkpoint.save_config(tmp_path, changed(fields, "optim.rate", -1.0))
    with pytest.raises(UserError) as caught:
        checkpoint.load_config(tmp_path)
    assert str(caught.value) == f"{tmp_path}: config.optim.rate=-1.0 must be above 0."


def test_null_in_the_options_of_later_windows_means_those_of_the_first():
    check(changed(STAGE_2, "sample.continued", {"steps": None}))
    with pytest.raises(UserError, match=r"config\.sample\.steps=None must be a whole number"):
        check(changed(STAGE_2, "sample.steps", None))


HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
WRONG_OPTIONS = [
    ("temperature", "hot", "must be a number, or several of"),
    ("temperature", [[1.0]], r"\[0\]=\[1\.0\] must be a number"),
    ("calibrated", 3, "must be a sequence"),
    ("calibrated", ["a"], r"\[0\]='a' must be a whole number"),
    ("steps", 2.0, "must be a whole number; nearest is 2"),
    ("steps", True, "must be a whole number"),
    ("guidance", "high", "must be a number"),
    ("guidance_interval", 3, "must be two rising fractions"),
    ("guidance_interval", [0.5, 0.5], "must be two rising fractions"),
    ("negative", 3, "must be text"),
    ("order", None, "must be one of confidence"),
    ("order", 3, "must be one of confidence"),
]
TRY = """
import json, sys
from phenaki.errors import UserError
from phenaki.sampling.options import SamplingOptions
for name, value, _ in json.load(sys.stdin):
    given = {"steps": 4, "choice_temperature": 1.0, "guidance": 1.0, name: value}
    try:
        SamplingOptions(**given)
        print("taken")
    except UserError as error:
        print(error)
"""


def test_an_option_of_a_wrong_type_is_refused_by_its_name():
    # In a process of its own, without the type checks of tests.
    run = subprocess.run(
        [sys.executable, "-c", TRY],
        input=json.dumps(WRONG_OPTIONS), env=HERE, capture_output=True, text=True,
    )  # fmt: skip
    lines = run.stdout.splitlines()
    for (name, _, rule), line in zip(WRONG_OPTIONS, lines, strict=True):
        assert re.match(rf"{name}.*{rule}", line), line


def test_scalar_arrays_are_numbers():
    chosen = options.SamplingOptions(np.int64(4), np.float32(1), np.float64(0.5))
    assert chosen.static().steps == 4
    assert rules.Number(0, 1).wrong(np.asarray(2.0)) == ("", 2.0, "must be at most 1")


def test_choices_are_the_keys_of_their_tables():
    fields = {path: field.rule for path, field in ALL.items()}
    tables = {
        "tokenizer.name": factory.TOKENIZERS,
        "tokenizer.quantizer": quantizer.QUANTIZERS,
        "gan.network": discriminator.DISCRIMINATORS,
        "gan.loss": gan.LOSSES,
        "dtype": factory.DTYPES,
        "remat": transformer.REMAT,
        "attention": attention_impl.CHOICES,
        "mask.schedule": schedules.SCHEDULES,
        "loss.reduction": masked_tokens.REDUCTIONS,
        "labels": critic_stage.LABELS,
        "data.captions": clips.CAPTIONS,
        "kind": migrations.KINDS,
        "sample.schedule": schedules.SAMPLER_SCHEDULES,
        "sample.order": orders.NAMES,
        "sample.view": views.NAMES,
        "sample.guidance_schedule": guidance.RAMPS,
    }
    assert {path: sorted(fields[path].names) for path in tables} == {
        path: sorted(table) for path, table in tables.items()
    }


def test_every_option_and_every_size_of_a_network_has_a_row():
    assert {*sampling.OPTIONS, "critic", "student", "trace"} == {*options.NAMES}
    of_clips = {"size", "frames", "seed"}  # from config.video and config.seed
    assert set(schema.WORLD) == {field.name for field in dataclasses.fields(World)} - of_clips
    own = {"frames", "size", "patch", "code_dim", "codebook", "channels", "quantizer_type", "dtype",
           "remat", "unroll", "attention", "parent", "name"}  # fmt: skip
    for name, network in factory.TOKENIZERS.items():
        sizes = {field.name for field in dataclasses.fields(network)} - own
        assert sizes == set(networks.SIZES[name])
    encoder = {field.name for field in dataclasses.fields(T5Encoder)} - own
    assert encoder <= set(networks.TEXT)


def test_the_page_is_made_of_the_rows():
    page = config_page.PAGE.read_text()
    assert config_page.split(page)[1] == config_page.tables()
    for kind, fields in schema.KINDS.items():
        named = [path for path, _ in help.rows(kind)]
        assert {*fields} - {*named} == {
            p for p in fields if p.startswith(("sample.continued.", "presets."))
        }
        assert all(f"| `{path}` |" in page for path in named)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "train_cvivit",
            "  --config.optim.rate=number, above 0 to 10\n      peak of the learning rate",
        ),
        (
            "train_maskgit",
            "  --config.drop_text=number, 0 to 1\n      of samples that train without",
        ),
        ("train_critic", "  --config.labels=masked or differs\n      fake: every masked token"),
    ],
)
def test_help_of_training_lists_the_fields(command, line):
    run = subprocess.run(
        [sys.executable, f"scripts/{command}.py", "--help"],
        env=HERE,
        capture_output=True,
        text=True,
    )
    assert line in run.stdout
    assert "  --coordinator=string" in run.stdout


@pytest.mark.parametrize("file", ["cvivit", "baselines", "maskgit", "critic"])
def test_help_has_a_line_for_every_preset(file):
    lines = training_flags.presets(file)
    module = importlib.import_module(f"phenaki.configs.{file}")
    for name in module.VARIANTS:
        line = lines[lines.index(f"  {file}:{name}") + 1]
        assert re.fullmatch(r" {6}[A-Z0-9].{12,}[.)]", line) and len(line) <= 100, (name, line)


@pytest.mark.parametrize("command", ["train_cvivit", "doctor", "plan"])
def test_commands_with_a_config_list_the_presets(command):
    call = [sys.executable, f"scripts/{command}.py", "--help"]
    text = subprocess.run(call, env=HERE, capture_output=True, text=True, check=True).stdout
    assert "\n  cvivit:small\n      Own clips" in text
    assert "\n  baselines:vit_mini\n" in text
