"""Models travel: to folders and the hub and back, with their checksums, and execute nothing."""

import hashlib
import json
import os
import shutil

import conftest
import hub as hub_helper
import jax
import numpy as np
import pytest
import safetensors.numpy as st
import script_calls
import tiny
import yaml

from phenaki.errors import UserError
from phenaki.io import checkpoint, hub, shared_model
from phenaki.models.frozen import Tokenizer
from phenaki.pipeline import Phenaki
from phenaki.reports import model_card

# The hub's client uploads in a way that its own HTTP library deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
PROMPT = "a red circle | <b>moves</b> left"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A whole model."""
    directory = tmp_path_factory.mktemp("bundles") / "whole"
    tiny.phenaki().save(directory, seed=7)
    return directory


@pytest.fixture(scope="module")
def shared(bundle):
    """It as a shared model, with a sample."""
    directory = bundle.parent / "shared"
    script_calls.call(
        "push.py", f"--model={bundle}", f"--output={directory}", f"--prompt={PROMPT}",
        "--license=apache-2.0",
    )  # fmt: skip
    return directory


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A hub on loopback that this process uses instead of the real one."""
    from huggingface_hub import constants

    for name, value in dict(
        HF_HUB_OFFLINE=False, HF_HUB_DISABLE_XET=True, HF_HUB_CACHE=str(tmp_path / "cache"),
        HF_HUB_DISABLE_PROGRESS_BARS=True,
    ).items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.chdir(tmp_path)
    with hub_helper.serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_invented")
        yield server


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_shared_model_is_plain_data_that_loads_as_the_bundle_does(bundle, shared):
    from safetensors.numpy import load_file

    arrays = load_file(shared / "maskgit.safetensors")
    assert "transformer/norm/scale" in arrays and "embedding" in arrays
    equal(Phenaki.load(shared).params, Phenaki.load(bundle).params)
    files = {str(p.relative_to(shared)) for p in shared.rglob("*") if p.is_file()}
    files = {name for name in files if not name.endswith(".phenaki.json")}
    suffixes = {name.rpartition(".")[2] for name in files}
    assert suffixes == {"json", "md", "safetensors", "mp4", "gif", "png"}


def test_the_card_says_what_the_bundle_knows_and_prompts_are_inert(shared):
    text = (shared / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["license"] == "apache-2.0" and fields["pipeline_tag"] == "text-to-video"
    assert fields["library_name"] == "phenaki"
    assert f"Fingerprint: {tiny.phenaki().fingerprint}" in body
    assert f'Phenaki.load("{shared}")' in body
    assert "| seed | 7 |" in body and "## Limits and responsible use" in body
    assert "a red circle \\| &#60;b&#62;moves&#60;/b&#62; left](samples/sample_0.mp4)" in body
    fence = body.split("```")[1]
    assert "<b>" not in body.replace(fence, "")


@pytest.mark.parametrize("name", ["maskgit.safetensors", "config.json"])
def test_one_flipped_bit_is_seen(shared, tmp_path, name):
    model = tmp_path / "model"
    shared_model.copy(shared, _made(model))
    content = bytearray((model / name).read_bytes())
    content[content.index(b'"fps"') + 7 if name == "config.json" else -1] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or "):
        Phenaki.load(model)


def _made(directory):
    directory.mkdir()
    return directory


def test_a_file_outside_the_folder_is_not_read(shared, tmp_path):
    model = tmp_path / "model"
    shared_model.copy(shared, _made(model))
    content = json.loads((model / "config.json").read_text())
    content["files"] = {"../other/maskgit.safetensors": "0"}
    del content["sums"]
    (model / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="are not those of a model"):
        Phenaki.load(model)


def test_the_vocabulary_of_a_model_travels_with_it(tmp_path):
    file = tmp_path / "on_this_machine.model"
    file.write_bytes(b"pieces")
    fields = tiny.whole_config(text={"vocabulary": shared_model.VOCABULARY}).to_dict()
    params = {"tokenizer": {"kernel": np.ones(2, np.float32)}}
    model = _made(tmp_path / "model")
    checkpoint.save_shared(model, params, fields, file)
    _, config, _ = checkpoint.load_bundle(model)
    assert config.text.vocabulary == str(model / shared_model.VOCABULARY)
    assert (model / shared_model.VOCABULARY).read_bytes() == b"pieces"


def test_a_missing_network_is_named(shared, tmp_path):
    model = tmp_path / "model"
    shared_model.copy(shared, _made(model))
    (model / "text.safetensors").unlink()
    with pytest.raises(UserError, match=r"text\.safetensors: is missing"):
        Phenaki.load(model)


def test_stage_1_and_a_critic_travel_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny.phenaki()
    config = tiny.tokenizer_config()
    params = {"tokenizer": jax.device_get(model.params["tokenizer"])}
    checkpoint.save_bundle("stage1", params, config.to_dict(), kind="tokenizer")
    script_calls.call("push.py", "--model=stage1", "--output=shared")
    script_calls.call("export.py", "--model=shared", "--output=exported")
    whole = Tokenizer.load("stage1")
    for place in ("shared", "exported"):
        found = Tokenizer.load(place)
        assert found.fingerprint == whole.fingerprint
        equal(found.params, whole.params)
    assert "reconstruct" in (tmp_path / "shared/README.md").read_text()
    with pytest.raises(UserError, match="holds a tokenizer, not a whole model"):
        Phenaki.load("shared")
    with pytest.raises(UserError, match="takes no text"):
        script_calls.call("push.py", "--model=stage1", "--output=more", "--prompt=a circle")


def test_a_smaller_model_leaves_nothing_of_the_one_before(shared, tmp_path):
    place = tmp_path / "place"
    script_calls.call("pull.py", f"--model={shared}", f"--output={place}")
    config = tiny.tokenizer_config()
    params = {"tokenizer": jax.device_get(tiny.phenaki().params["tokenizer"])}
    stage1 = tmp_path / "stage1"
    checkpoint.save_bundle(stage1, params, config.to_dict(), kind="tokenizer")
    script_calls.call("push.py", f"--model={stage1}", f"--output={place}")
    assert [p.name for p in place.glob("*.safetensors")] == ["tokenizer.safetensors"]
    assert not list((place / "samples").glob("*.mp4"))


def test_to_the_hub_and_back_by_one_line(bundle, served, tmp_path, capsys):
    push = ("push.py", f"--model={bundle}", "--repo=shapes/tiny", f"--prompt={PROMPT}")
    script_calls.call(*push)
    assert f"{served.address}/shapes/tiny/commit/" in capsys.readouterr().out
    assert served.private == {"shapes/tiny"}
    commit, files = served.files("shapes/tiny")
    assert {"config.json", "README.md", "samples/sample_0.mp4"} <= set(files)
    assert not [name for name in files if ".phenaki" in name]
    served.requests.clear()
    model = Phenaki.load("shapes/tiny")
    equal(model.params, tiny.phenaki().params)
    fetched = {path.rpartition("/")[2] for method, path in served.requests if method == "GET"}
    assert not {"README.md", "sample_0.mp4"} & fetched

    script_calls.call("pull.py", f"--model=shapes/tiny@{commit}", "--output=copy")
    assert (tmp_path / "copy/samples/sample_0.mp4").read_bytes() == files["samples/sample_0.mp4"]
    equal(Phenaki.load("copy").params, model.params)


def test_a_pinned_revision_stays_what_it_was(bundle, served):
    script_calls.call("push.py", f"--model={bundle}", "--repo=shapes/tiny")
    commit, _ = served.files("shapes/tiny")
    script_calls.call("push.py", f"--model={bundle}", "--repo=shapes/tiny", "--dtype=bfloat16")
    pinned, newest = Phenaki.load(f"shapes/tiny@{commit}"), Phenaki.load("shapes/tiny")
    assert pinned.fingerprint == tiny.phenaki().fingerprint != newest.fingerprint


@pytest.mark.parametrize(
    "name, reason",
    [("shapes/none", "no such directory, and the hub refuses"), ("shapes/none@v1", "refuses")],
)
def test_a_model_that_the_hub_has_not_is_one_line(served, name, reason):
    with pytest.raises(UserError, match=reason) as error:
        Phenaki.load(name)
    assert "\n" not in str(error.value)


def test_a_misspelt_path_contacts_nobody(served, tmp_path):
    (tmp_path / "mine").mkdir()
    for path in (
        "mine/maskgti",
        "runs/cvivit",
        "./org/name",
        "a/b/c",
        str(tmp_path / "none"),
        "laptopp",
    ):
        with pytest.raises(UserError, match="no such directory"):
            Phenaki.load(path)
    assert not served.requests


def test_names_of_the_hub():
    assert hub.split("org/name@v1.0") == ("org/name", "v1.0")
    for name in ("name", "org/name/more", "org/na me", "../name", "org/name@"):
        with pytest.raises(UserError, match="must be ORG/NAME"):
            hub.split(name)


def test_scores_of_another_model_are_refused():
    record = {"name": "psnr", "value": 20.0, "n": 8, "settings": {"model": {"fingerprint": "ab"}}}
    model_card.check_scores({"a.json": {"records": [record]}}, "ab")
    with pytest.raises(UserError, match=r"--scores=a\.json: is of model ab, but this one is cd"):
        model_card.check_scores({"a.json": {"records": [record]}}, "cd")


def test_tests_cannot_contact_the_hub():
    assert os.environ["HF_HUB_OFFLINE"] == "1" and conftest


@pytest.mark.parametrize("content", [[1], {}, {"records": [1]}, {"records": {"a": 1}}, {"a": 1}])
def test_what_holds_no_scores_is_one_line(content):
    with pytest.raises(UserError, match=r"--scores=a\.json: holds no scores of evaluate\.py"):
        model_card.check_scores({"a.json": content}, "ab")


def _of_others(source, folder, change, network="maskgit", **config):
    """A shared model as another program would write it: no checksum of ours, one file changed."""
    shutil.copytree(source, folder)
    file = folder / f"{network}.safetensors"
    arrays = st.load_file(file)
    change(arrays)
    st.save_file(arrays, file)
    facts = json.loads((folder / "config.json").read_text())
    del facts["sums"]
    facts["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    facts["config"]["model"] |= config
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def _nothing(arrays):
    del arrays


def _gone(arrays):
    del arrays["head/kernel"]


def _smaller(arrays):
    arrays["head/kernel"] = arrays["head/kernel"][:1].copy()


def _one_more(arrays):
    arrays["head/extra"] = np.zeros(3, np.float32)


def _no_number(arrays):
    arrays["head/kernel"][0, 0] = np.nan


def _both(arrays):
    arrays["head/kernel/deeper"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("change", "config", "line"),
    [
        (_gone, {}, "has no parameter maskgit/head/kernel, which its config asks for"),
        (_smaller, {}, r"its maskgit/head/kernel has shape \(1, \d+\), but its config says \(16, "),
        (_one_more, {}, "has a parameter maskgit/head/extra, of none of its config's networks"),
        (_no_number, {}, "its maskgit/head/kernel has NaN or infinity"),
        (_both, {}, r"maskgit\.safetensors: is damaged"),
        (_nothing, {"width": 32}, r"has shape \(.*16.*\), but its config says \(.*32"),
    ],
)
def test_parameters_of_other_programs_fit_the_config_or_are_named(
    bundle, tmp_path, change, config, line
):
    script_calls.call("push.py", f"--model={bundle}", f"--output={tmp_path / 'shared'}")
    with pytest.raises(UserError, match=line):
        Phenaki.load(_of_others(tmp_path / "shared", tmp_path / "other", change, **config))


def test_a_model_of_other_programs_that_fits_samples(bundle, tmp_path):
    script_calls.call("push.py", f"--model={bundle}", f"--output={tmp_path / 'shared'}")
    other = Phenaki.load(_of_others(tmp_path / "shared", tmp_path / "other", _nothing))
    assert other.fingerprint == Phenaki.load(bundle).fingerprint
