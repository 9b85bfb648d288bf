"""Damaged bundles and runs: refused, or the checkpoint before is used; never loaded in silence."""

import json
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from phenaki.data import token_files
from phenaki.errors import UserError
from phenaki.io import checkpoint, checkpoint_manager, stored_params, verify
from phenaki.train import state, workdir

FACTS = dict(kind="tokenizer", note="größe")


def params():
    random_values = np.random.default_rng(0)
    return {
        "tokenizer": {
            "dense": {"kernel": random_values.standard_normal((40, 30)).astype(np.float32)},
            "bias": random_values.standard_normal(30).astype(np.float32),
        }
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "bundle"
    checkpoint.save_bundle(directory, params(), tiny.tokenizer_config().to_dict(), **FACTS)
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two checkpoints; the averaged parameters are ones at first, then twos."""
    directory = tmp_path_factory.mktemp("run")
    checkpoint.save_config(directory, tiny.tokenizer_config().to_dict())
    weights = params()["tokenizer"]
    current = state.create(weights, optax.adam(1.0), {"sums": jnp.arange(5.0)})
    saved = checkpoint_manager.Checkpoints(directory)
    for step in (1, 2):
        average = jax.tree.map(lambda x, value=step: np.full_like(x, value), weights)
        saved.save(step, current.replace(ema=average), {"taken": step})
    saved.close()
    return directory


def equal(one, other) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def flip(directory: Path, chance: random.Random) -> None:
    """One bit of one file, each byte of the folder as likely as any other."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    file = chance.choices(files, [path.stat().st_size for path in files])[0]
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def test_a_flipped_bit_in_a_bundle_changes_no_number_in_silence(bundle, tmp_path):
    whole, config, facts = checkpoint.load_bundle(bundle)
    assert facts == FACTS
    chance, refused = random.Random(0), 0
    for index in range(12):
        copy = shutil.copytree(bundle, tmp_path / str(index))
        flip(copy, chance)
        try:
            found, its_config, its_facts = checkpoint.load_bundle(copy)
        except UserError as error:
            assert str(copy) in str(error)
            refused += 1
            continue
        assert equal(found, whole) and its_config == config and its_facts == facts
    assert refused  # the folder is not all of what nobody reads


def damage_values(directory: Path) -> None:
    """Another value in a copy of the stored parameters, in a valid file of Orbax."""
    directory = directory / "params"
    tree = stored_params._restore(directory)
    tree["tokenizer"]["dense"]["kernel"] = tree["tokenizer"]["dense"]["kernel"].copy()
    tree["tokenizer"]["dense"]["kernel"][3, 4] += 1e-3
    shutil.rmtree(directory)
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory, tree)


def test_other_parameters_are_refused_unless_nothing_is_to_be_verified(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    damage_values(copy)
    with pytest.raises(UserError, match="copy: is damaged .its checksums do not match.; copy it"):
        checkpoint.load_bundle(copy)
    with verify.unverified():
        assert not equal(checkpoint.load_bundle(copy)[0], params())
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.load_bundle(copy)


def test_an_edited_description_is_noticed(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    facts = json.loads((copy / "bundle.json").read_text())
    facts["config"]["tokenizer"]["heads"] = 4
    (copy / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"bundle\.json: is damaged, or was edited"):
        checkpoint.load_bundle(copy)
    with verify.unverified():
        assert checkpoint.load_bundle(copy)[1].tokenizer.heads == 4


def test_a_bundle_of_before_checksums_is_read(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    facts = json.loads((copy / "bundle.json").read_text())
    del facts["sums"]
    (copy / "bundle.json").write_text(json.dumps(facts))
    assert equal(checkpoint.load_bundle(copy)[0], params())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"kind": "phenaki"}', '{"schema": "x"}'])
def test_a_description_that_is_none_is_one_line(bundle, tmp_path, content):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "bundle.json").write_text(content)
    with pytest.raises(UserError, match="copy"):
        checkpoint.load_bundle(copy)


@pytest.mark.parametrize("content", ["", '{"schema": 2, "video": {"frames', "[]", '{"schema": 1}'])
def test_a_config_that_is_none_is_one_line(run, tmp_path, content):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "config.json").write_text(content)
    with pytest.raises(UserError, match="copy"):
        checkpoint.load_run(copy)


def flipped(file):
    """Writes `file` with each of its bits flipped in turn, of every third byte; then as it was."""
    content = file.read_bytes()
    for at in range(0, len(content), 3):
        for bit in range(8):
            file.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            yield
    file.write_bytes(content)


def unnoticed(file, read):
    """How many flipped bits of `file` make `read` give another value of a field than before."""
    before, wrong = dict(read()), 0
    for _ in flipped(file):
        try:
            now = dict(read())
            wrong += {name: now.get(name) for name in before} != before
        except UserError as error:
            assert "damaged" in str(error) or "schema" in str(error), error
    return wrong


def test_a_flipped_bit_in_the_config_of_a_run_is_noticed(tmp_path):
    checkpoint.save_config(tmp_path, {"kind": "tokenizer", "seed": 3, "dtype": "float32"})
    assert unnoticed(tmp_path / "config.json", lambda: checkpoint.load_config(tmp_path)) == 0
    checkpoint.save_config(tmp_path, config := tiny.tokenizer_config().to_dict())
    assert checkpoint.load_config(tmp_path).to_dict() == json.loads(json.dumps(config))
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"beta": 0.25', '"beta": 0.75'))
    with pytest.raises(UserError) as caught:
        checkpoint.load_config(tmp_path)
    assert str(caught.value) == (
        f"{file}: is damaged, or was edited: its checksum is another one; copy it again, or give "
        "--no_verify."
    )
    with verify.unverified():
        assert checkpoint.load_config(tmp_path).loss.beta == 0.75


def test_a_flipped_bit_in_the_list_of_stored_tokens_is_noticed(tmp_path):
    origin, sizes = token_files.Origin("a", "b", "", ""), token_files.Sizes(24, 4, 0, 0)
    token_files.finish(str(tmp_path), {}, origin, sizes)
    file = tmp_path / "codes.json"
    assert unnoticed(file, lambda: token_files.read_manifest(tmp_path)) == 0
    content = json.loads(file.read_text())
    content["sizes"]["video"] = 25
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="checksum is another one; encode it again with the same"):
        token_files.read_manifest(tmp_path)
    with verify.unverified():
        assert token_files.read_manifest(tmp_path)["sizes"]["video"] == 25
    del content["sums"]  # of an earlier version
    file.write_text(json.dumps(content))
    assert token_files.read_manifest(tmp_path)["sizes"]["video"] == 25


@pytest.mark.parametrize("read", [checkpoint.load_run, checkpoint.load_tokenizer])
def test_readers_of_runs_refuse_an_edited_config(run, tmp_path, read):
    copy = shutil.copytree(run, tmp_path / "copy")
    file = copy / "config.json"
    file.write_text(file.read_text().replace('"heads": ', '"heads": 1'))
    with pytest.raises(UserError, match=r"config\.json: is damaged, or was edited"):
        read(copy)
    with verify.unverified():
        assert read(copy)


def test_a_resumed_run_refuses_an_edited_config(tmp_path):
    fields = tiny.tokenizer_config().to_dict()
    workdir.claim(tmp_path, fields)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"config\.json: is damaged, or was edited"):
        workdir.claim(tmp_path, fields)


def test_the_released_bundle_has_checksums():
    facts = json.loads(Path("checkpoints/laptop/bundle.json").read_text())
    assert facts["sums"].keys() == {"facts", "params"}
    assert len(facts["sums"]["params"]) > 50


def test_a_reader_of_a_run_uses_the_checkpoint_before_a_damaged_one(run, tmp_path, caplog):
    average, _, step = checkpoint.load_run(run)
    assert step == 2 and average["bias"][0] == 2
    copy = shutil.copytree(run, tmp_path / "copy")
    record = copy / "checkpoints" / "2" / "data" / "metadata"
    sums = json.loads(record.read_text())
    # The order of the sums is that of the state: step, parameters, optimiser, average, extra.
    changed = sums["sums"][:-2] + [sums["sums"][-2] + 1, sums["sums"][-1]]
    record.write_text(json.dumps(sums | {"sums": changed}))
    average, _, step = checkpoint.load_run(copy)
    assert step == 1 and average["bias"][0] == 1
    assert "step 2 is damaged (its checksums do not match); using that of step 1" in caplog.text
    assert sorted(p.name for p in (copy / "checkpoints").iterdir()) == ["1", "2"]  # nothing moved
    with verify.unverified():
        assert checkpoint.load_run(copy)[2] == 2
    before = copy / "checkpoints" / "1" / "data" / "metadata"
    before.write_text(json.dumps(json.loads(before.read_text()) | {"sums": changed}))
    with pytest.raises(UserError, match="has no undamaged checkpoint; that of step 2: its check"):
        checkpoint.load_run(copy)


def test_what_readers_do_not_use_may_be_damaged(run, tmp_path):
    """Only the averaged parameters are read, and only their sums compared."""
    copy = shutil.copytree(run, tmp_path / "copy")
    record = copy / "checkpoints" / "2" / "data" / "metadata"
    sums = json.loads(record.read_text())
    sums["sums"][-1] += 1  # of `extra`
    record.write_text(json.dumps(sums))
    assert checkpoint.load_run(copy)[2] == 2
