"""Runs, bundles and data sets of every schema, by the commits that wrote them, work today."""

import json
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from phenaki.data import records, token_files
from phenaki.io import checkpoint, migrations
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.train import logs, maskgit, tokenizer

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = range(1, migrations.SCHEMA + 1)
RESUMED = dict(train=dict(steps=3, save_every=1, keep=1), data=dict(batch=2))
ONE = jax.devices()[:1]


@pytest.fixture(scope="module", params=SCHEMAS)
def stored(request, tmp_path_factory):
    """(schema, folder): tokenizer/, maskgit/, bundle/, set/, codes/ and video.npy, a sample."""
    folder = tmp_path_factory.mktemp(f"schema_{request.param}")
    with tarfile.open(GOLDEN / f"stored_{request.param}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return request.param, folder


def equal(one, other) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_each_archive_is_of_its_schema(stored):
    schema, folder = stored
    assert json.loads((folder / "maskgit/config.json").read_text()).get("schema", 1) == schema
    assert json.loads((folder / "bundle/bundle.json").read_text())["schema"] == schema


def test_the_model_samples_what_it_sampled(stored, tmp_path):
    """From the run, from the bundle, and exported anew with the checksums of today."""
    _, folder = stored
    model = Phenaki.load(folder / "maskgit")
    bundle = Phenaki.load(folder / "bundle")
    assert equal(model.params, bundle.params) and model.fingerprint == bundle.fingerprint
    video = model.generate(["a red circle moves left"], seed=5)
    np.testing.assert_allclose(video, np.load(folder / "video.npy"), atol=2e-3)
    bundle.save(tmp_path / "exported")
    facts = json.loads((tmp_path / "exported/bundle.json").read_text())
    assert facts["schema"] == migrations.SCHEMA and facts["sums"]["params"]
    assert equal(checkpoint.load_bundle(tmp_path / "exported")[0], bundle.params)


def test_the_run_of_stage_2_resumes_with_the_config_that_it_had(stored):
    schema, folder = stored
    if schema == migrations.SCHEMA:
        return  # as every run of today: `test_resume`
    config = tiny.maskgit_config(**RESUMED)
    maskgit.train(config, folder / "tokenizer", folder / "maskgit", devices=ONE)
    assert checkpoint.steps_done(folder / "maskgit") == 3
    assert [line["step"] for line in logs.read(folder / "maskgit")] == [3]
    assert checkpoint.load_config(folder / "maskgit").kind == "maskgit"


def test_the_run_of_stage_1_is_read_and_resumes(stored):
    schema, folder = stored
    assert checkpoint.load_run(folder / "tokenizer")[2] == 2
    if schema == min(SCHEMAS):  # those of later schemas differ in nothing that a resume reads
        tokenizer.train(tiny.tokenizer_config(**RESUMED), folder / "tokenizer", devices=ONE)
        assert checkpoint.steps_done(folder / "tokenizer") == 3


def test_the_data_set_and_its_tokens_are_read(stored):
    _, folder = stored
    shards = sorted((folder / "set").glob("*.tfrecord-?????-of-?????"))
    found = records.Records(shards)
    assert sum(len(found[number]) > 0 for number in range(len(found))) == 6
    if (folder / "codes").is_dir():
        manifest = token_files.read_manifest(folder / "codes")
        paths = [folder / "codes" / file["name"] for file in manifest["files"]["image_train"]]
        counts = [file["records"] for file in manifest["files"]["image_train"]]
        codes = records.Records(paths, counts)
        assert len(codes) == manifest["records"]["image_train"] == 6
        assert all(codes[number] for number in range(6))
        text = tiny.maskgit_config().text
        fingerprint = checkpoint.load_tokenizer(folder / "maskgit/tokenizer")[2]
        spec = factory.video_spec(checkpoint.load_config(folder / "tokenizer"))
        origin = token_files.Origin.of(fingerprint, spec, text)
        token_files.check_origin(folder / "codes", manifest, origin)
