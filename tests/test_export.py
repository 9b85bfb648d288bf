"""Exports: bundles that every script takes, programs that run without this package."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import script_calls
import tiny

from phenaki import export
from phenaki.errors import UserError
from phenaki.io import checkpoint, migrations
from phenaki.models.frozen import Tokenizer
from phenaki.pipeline import Phenaki

ALONE = """
import json, sys
import jax, numpy as np
folder, = sys.argv[1:]
weights = dict(np.load(f"{folder}/weights.npz"))
call = {
    name: jax.export.deserialize(open(f"{folder}/{name}.stablehlo", "rb").read()).call
    for name in ("encode", "decode", "sample")
}
inputs = dict(np.load(f"{folder}/inputs.npz"))
codes = call["sample"](
    weights, inputs["codes"], inputs["ids"], np.uint32(3), np.float32(2), np.float32(1.5)
)
video = call["decode"](weights, codes.reshape(inputs["grid"]))
again = call["encode"](weights, video)
assert not [name for name in sys.modules if name.split(".")[0] in ("phenaki", "flax")]
np.savez(f"{folder}/outputs.npz", codes=codes, video=video, again=again)
"""


def test_programs_give_the_pipelines_codes_in_a_process_without_this_package(tmp_path):
    model = tiny.phenaki()
    prompts = ["a red circle moves left", None]
    manifest = export.write(tmp_path, model, rows=2, platforms=("cpu", "cuda", "tpu"))
    assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
    sums = {f"{name}.stablehlo": about for name, about in manifest["programs"].items()}
    for name, about in {"weights.npz": manifest["weights"], **sums}.items():
        content = (tmp_path / name).read_bytes()
        assert about["sha256"] == hashlib.sha256(content).hexdigest()
        assert about["bytes"] == len(content)
    np.savez(
        tmp_path / "inputs.npz",
        codes=np.full((2, model.spec.tokens()), manifest["mask_id"], np.int32),
        ids=model.vocabulary.encode(prompts),
        grid=(2, *model.spec.grid()),
    )
    program = tmp_path / "alone.py"
    program.write_text(ALONE)
    command = [sys.executable, "-I", str(program), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "outputs.npz") as file:
        outputs = dict(file)
    sample = model.sample(prompts, seed=3, guidance=2.0, choice_temperature=1.5)
    np.testing.assert_array_equal(outputs["codes"], sample.tokens.reshape(2, -1))
    np.testing.assert_allclose(outputs["video"], sample.video, atol=1e-5)
    np.testing.assert_array_equal(outputs["again"], model.encode(sample.video))


def test_the_script_writes_both(run_script, tmp_path):
    done = run_script(
        "scripts/export.py", "--model=checkpoints/laptop", f"--output={tmp_path / 'out'}",
        "--programs", "--platforms=cpu", "--steps=2", "--dtype=bfloat16", quick=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sample.stablehlo: codes int32[1, 24], ids int32[1, 72], seed uint32[]" in done.stdout
    model, whole = Phenaki.load(tmp_path / "out"), Phenaki.load("checkpoints/laptop")
    assert model.fingerprint == whole.fingerprint  # it was in bfloat16 before
    facts = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert facts["schema"] == migrations.SCHEMA and facts["fingerprint"] == whole.fingerprint


def test_a_tokenizer_alone_has_programs_too(tmp_path, monkeypatch, capsys):
    params, run = {"tokenizer": tiny.phenaki().params["tokenizer"]}, tmp_path / "run"
    checkpoint.save_bundle(run, params, tiny.tokenizer_config().to_dict(), kind="tokenizer")
    tokenizer = Tokenizer.load(run)
    flags = (f"--model={run}", f"--output={tmp_path / 'out'}", "--programs", "--platforms=cpu")
    script_calls.call("export.py", *flags)
    assert "encode.stablehlo: video float32[1, 11, 16, 16, 3]" in capsys.readouterr().out
    folder = tmp_path / "out/programs"
    manifest = json.loads((folder / "programs.json").read_text())
    assert sorted(manifest["programs"]) == ["decode", "encode"] and "mask_id" not in manifest
    with np.load(folder / "weights.npz") as file:
        weights = dict(file)
    call = {
        name: jax.export.deserialize((folder / f"{name}.stablehlo").read_bytes()).call
        for name in ("encode", "decode")
    }
    clip = np.random.default_rng(0).uniform(size=(1, 11, 16, 16, 3)).astype(np.float32)
    tokens = np.asarray(call["encode"](weights, clip))
    np.testing.assert_array_equal(tokens, tokenizer.encode(clip))
    np.testing.assert_allclose(call["decode"](weights, tokens), tokenizer.decode(tokens), atol=1e-5)
    with pytest.raises(UserError, match="--steps: .*run is a tokenizer, which samples nothing"):
        script_calls.call("export.py", *flags, "--steps=3")


def test_unknown_platforms_are_named(tmp_path):
    with pytest.raises(UserError, match="--platforms='gpu' must be one of cpu, cuda, tpu"):
        export.write(tmp_path, tiny.phenaki(), rows=1, platforms=("gpu",))


def test_the_released_bundle_is_of_this_version_and_says_how_it_was_trained():
    """Bundles of earlier versions: test_stored."""
    facts = json.loads(Path("checkpoints/laptop/bundle.json").read_text())
    assert facts["schema"] == migrations.SCHEMA and facts["sums"]["params"]
    assert len(facts["command"]) == len(facts["seconds"])
    assert not [command for command in facts["command"] if " /" in command or "=/" in command]
    _, config, _ = checkpoint.load_bundle("checkpoints/laptop")
    world = config.data.world
    assert f"--config.mask.prefix={config.mask.prefix}" in facts["command"][-1]
    assert f"--config.data.world.wander={world.wander}" in facts["command"][-1]


def test_a_newer_version_is_refused(tmp_path):
    config = tiny.tokenizer_config()
    checkpoint.save_bundle(tmp_path, {"a": np.zeros(1)}, config.to_dict())
    facts = json.loads((tmp_path / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps(facts | {"schema": migrations.SCHEMA + 1}))
    with pytest.raises(UserError, match="of a newer version of phenaki; this one reads up to"):
        checkpoint.load_bundle(tmp_path)


def test_a_runs_config_is_of_a_version_and_old_ones_have_none(tmp_path):
    config = tiny.whole_config()
    checkpoint.save_config(tmp_path, config.to_dict())
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["schema"] == migrations.SCHEMA
    assert checkpoint.load_config(tmp_path).attention == config.attention
    del stored["schema"], stored["sums"], stored["attention"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert checkpoint.load_config(tmp_path).attention == "auto"


def test_every_version_has_a_migration():
    assert sorted(migrations.MIGRATIONS) == list(range(1, migrations.SCHEMA))
    assert jax.export.maximum_supported_calling_convention_version >= 9
