"""Stored configs of every schema, and `config.kind`: what a config trains."""

import json

import pytest
import tiny
from ml_collections import ConfigDict

from configs import baselines, cvivit, maskgit
from configs import critic as critics
from phenaki.errors import UserError
from phenaki.io import checkpoint, migrations
from phenaki.train import critic, tokenizer
from phenaki.train import maskgit as stage_2

CONFIGS = {
    "tokenizer": (cvivit.get_config("laptop"), baselines.get_config("vit_mini")),
    "maskgit": (maskgit.get_config("laptop"), tiny.whole_config()),
    "critic": (critics.get_config("laptop"),),
}
CASES = [(kind, config) for kind, configs in CONFIGS.items() for config in configs]


def without_kind(config):
    fields = config.to_dict()
    del fields["kind"]
    return fields


@pytest.mark.parametrize(("kind", "config"), CASES)
def test_every_config_has_the_kind_that_its_sections_imply(kind, config):
    assert config.kind == kind
    assert migrations.with_kind(without_kind(config)) == config.to_dict()


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize(("kind", "config"), CASES)
def test_an_old_run_gets_its_kind_and_is_stored_with_the_current_schema(
    kind, config, schema, tmp_path
):
    path = tmp_path / "config.json"
    fields = without_kind(config)
    if kind == "critic":  # its run stores the generator's sections, too
        fields |= {"model": {}, "text": None}
    path.write_text(json.dumps(fields | ({"schema": schema} if schema > 1 else {})))
    loaded = checkpoint.load_config(tmp_path)
    assert loaded.kind == kind
    checkpoint.save_config(tmp_path, loaded.to_dict())
    stored = json.loads(path.read_text())
    assert (stored["schema"], stored["kind"]) == (3, kind)
    assert checkpoint.load_config(tmp_path).to_dict() == loaded.to_dict()


def test_the_released_bundle_is_a_whole_model_with_the_config_of_a_maskgit():
    _, config, facts = checkpoint.load_bundle("checkpoints/laptop")
    assert (facts["kind"], config.kind) == ("phenaki", "maskgit")


def test_a_config_file_without_kind_is_accepted(tmp_path):
    config = ConfigDict(without_kind(tiny.maskgit_config()))
    assert stage_2.with_tokenizer(config, tiny.tokenizer_config(), "").kind == "maskgit"
    # Its other mistakes are reported, which means that its kind was accepted.
    config = ConfigDict(without_kind(tiny.tokenizer_config(video={"frames": 10})))
    with pytest.raises(UserError, match=r"config\.video\.frames=10 must be 1 \+ a multiple"):
        tokenizer.train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("train", "kind", "given"),
    [
        (lambda config, run: tokenizer.train(config, run), "tokenizer", "maskgit"),
        (lambda config, run: tokenizer.train(config, run), "tokenizer", "critic"),
        (lambda config, run: stage_2.train(config, "checkpoints/laptop", run), "maskgit", "critic"),
        (
            lambda config, run: critic.train(config, "checkpoints/laptop", run),
            "critic",
            "tokenizer",
        ),
    ],
)
def test_the_config_of_another_kind_is_named_with_its_script(train, kind, given, tmp_path):
    with pytest.raises(UserError) as caught:
        train(CONFIGS[given][0], tmp_path / "run")
    assert str(caught.value) == (
        f"config.kind={given!r} must be {kind!r} for {migrations.KINDS[kind]}; "
        f"{migrations.KINDS[given]} trains this config."
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"config\.kind='maskgti' must be one of .*did you mean"):
        migrations.of_kind("maskgit", {"kind": "maskgti"})
