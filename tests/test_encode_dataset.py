"""Stored tokens: correct, equal after any stop, refused when stale, equivalent to pixels."""

import itertools
import json
import os
import shutil
from pathlib import Path

import clip_sets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_seqio_source
import tiny

from phenaki.data import batches, format, mixture, records, tensorflow, token_files
from phenaki.data import tokens as stored_tokens
from phenaki.data.host_rows import HostRows, host_rows
from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.train import encode_dataset, logs
from phenaki.train import maskgit as training

CLIPS, IMAGES, PER_SHARD = 10, 5, 3
RNG = np.random.default_rng(0)
# Larger and longer than the tokenizer's clips: the centre of the first frames is taken.
FRAMES = RNG.integers(0, 256, (CLIPS + IMAGES, 13, 20, 18, 3), np.uint8)


def write(directory, frames=FRAMES, size=(13, 20, 18)):
    """A data set; clip n is frames[n], cut to `size`; every third is without caption."""
    count, height, width = size
    form = format.ClipFormat(count, 8.0, height, width, "png")
    stored = {"video_train": [], "image_train": []}
    for n in range(CLIPS + IMAGES):
        video = frames[n, :count, :height, :width]
        caption = None if n % 3 == 0 else f"number {n}"
        kind = "video" if n < CLIPS else "image"
        encoded = format.encode(video if kind == "video" else video[:1], "png")
        record = format.ClipRecord(f"key {n}", encoded, caption, "", "", (48, 64), 0.0, 8.0)
        stored[f"{kind}_train"].append(record)
    return clip_sets.write(directory, form, stored, PER_SHARD)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("tokenizer"), 1.0)


def bundle(directory, scale):
    config = tiny.tokenizer_config()
    network = factory.tokenizer(config)
    params = tiny.random_params(network, np.zeros((1, 11, 16, 16, 3), np.float32))
    params = jax.tree.map(lambda x: x * scale, params)
    checkpoint.save_bundle(directory, {"tokenizer": params}, config.to_dict())
    return directory


def encode(tokenizer, data, output, config=None, **arguments):
    """Encodes everything on one host; returns what is logged."""
    logged = []
    encoder = opened(tokenizer, data, output, config)
    encode_dataset.run(encoder, logged.append, Silent, **arguments)
    return logged


def opened(tokenizer, data, output, config=None):
    config = tiny.maskgit_config() if config is None else config
    return training.open_encoder(config, tokenizer, str(data), str(output), batch=8)


class Silent:
    def __init__(self, total):
        self.total, self.done = total, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        self.done += count


@pytest.fixture(scope="module")
def encoded(tokenizer, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("codes") / "set"
    encode(tokenizer, data, output)
    return output


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def tokens_config(encoded, tokenizer, **fields):
    """The config of stage 2 in training, with stored tokens as data."""
    _, stage1, digest = checkpoint.load_tokenizer(tokenizer)
    config = tiny.maskgit_config(data=dict(source="codes", sources=str(encoded), **fields))
    return training.with_tokenizer(config, stage1, digest)


def origin_of(config):
    return token_files.Origin.of(config.fingerprint, factory.video_spec(config), config.text)


def read(config, kind="video", size=2, sources=None, **arguments):
    arguments = dict(split="train", kind=kind, rows=HostRows.whole(size), seed=0) | arguments
    return stored_tokens.batches(
        sources or config.data.sources, origin=origin_of(config), **arguments
    )


def test_stored_tokens_and_ids_are_those_of_the_tokenizer_and_the_vocabulary(encoded, tokenizer):
    params, config, _ = checkpoint.load_tokenizer(tokenizer)
    network = factory.tokenizer(config)
    whole = tokens_config(encoded, tokenizer)
    vocabulary = factory.vocabulary(whole)
    for kind, first, count, frames in (("video", 0, CLIPS, 11), ("image", CLIPS, IMAGES, 1)):
        pixels = FRAMES[first : first + count, :frames, 2:18, 1:17].astype(np.float32) / 255
        params = jax.tree.map(jnp.asarray, params)
        wanted = network.apply({"params": params}, jnp.asarray(pixels), method="encode")
        wanted = wanted.reshape(count, -1)
        wanted = {bytes(np.asarray(row, np.int32)): n for n, row in enumerate(wanted, first)}
        seen = []
        for arrays, captions in itertools.islice(read(whole, kind, size=1), count):
            (tokens,), (caption,) = arrays["tokens"], captions
            number = wanted[tokens.tobytes()]
            seen.append(number)
            assert caption == (None if number % 3 == 0 else f"number {number}")
            np.testing.assert_array_equal(arrays["text_ids"], vocabulary.encode([caption]))
        assert sorted(seen) == list(range(first, first + count))


def test_an_interrupted_run_resumes_and_gives_the_same_bytes(
    encoded, tokenizer, data, tmp_path, monkeypatch
):
    class Stopped(Exception):
        pass

    def stopping(encoder, file, sha256):
        if stops and file.path.endswith(stops[0]):
            output = encoder.output_of(file)
            for name in (
                f"{output}.part",
                f"{os.path.dirname(output)}/.{os.path.basename(output)}.0123abcd.partial",
            ):
                Path(name).write_text("half")
            stops.pop(0)
            raise Stopped
        made.append(os.path.basename(file.path))
        return encode_file(encoder, file, sha256)

    encode_file = encode_dataset.encode_file
    monkeypatch.setattr(encode_dataset, "encode_file", stopping)
    made, stops = [], ["video_train.tfrecord-00001", "video_train.tfrecord-00002"]
    encoder = opened(tokenizer, data, tmp_path / "out")
    for _ in range(2):
        with pytest.raises(Stopped):
            encode_dataset.run(encoder, print, Silent)
        with pytest.raises(UserError, match=r"no codes\.json"):
            token_files.read_manifest(tmp_path / "out")
    encode_dataset.run(encoder, print, Silent)
    assert len(made) == len(set(made)) == 6  # 4 files of clips, 2 of images: none twice
    assert contents(tmp_path / "out") == contents(encoded)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_split_the_files_and_write_the_same_bytes(
    encoded, tokenizer, data, tmp_path, monkeypatch, hosts
):
    from jax.experimental import multihost_utils

    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: None)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", np.ones_like)  # all are missing
    counts = []
    for host in reversed(range(hosts)):  # host 0 waits for the others
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        before = set(os.listdir(tmp_path))
        encode(tokenizer, data, tmp_path)
        done = [n for n in set(os.listdir(tmp_path)) - before if n.endswith(token_files.DONE)]
        counts.append(len(done))
    assert sum(counts) == 6 and max(counts) - min(counts) <= 1
    assert contents(tmp_path) == contents(encoded)


def test_only_what_changed_is_encoded_again(encoded, tokenizer, data, tmp_path):
    source, output = tmp_path / "set", tmp_path / "codes"
    shutil.copytree(data, source)
    shutil.copytree(encoded, output)
    before = {name: (output / name).stat().st_mtime_ns for name in os.listdir(output)}

    def renewed():
        now = {name: (output / name).stat().st_mtime_ns for name in os.listdir(output)}
        names = {n for n in now if "tfrecord" in n and n.endswith(token_files.DONE)}
        again = {name for name in names if before.get(name) != now[name]}
        before.update(now)
        return again

    assert "6 files are encoded already" in encode(tokenizer, source, output) and not renewed()
    changed = "clips-video_train.tfrecord-00001"
    other = write(tmp_path / "other", 255 - FRAMES) / changed
    shutil.copy(other, source / changed)
    encode(tokenizer, source, output)
    assert renewed() == {changed + token_files.DONE}
    (output / "clips-image_train.tfrecord-00000").write_bytes(b"truncated")
    encode(tokenizer, source, output)
    assert renewed() == {"clips-image_train.tfrecord-00000" + token_files.DONE}
    left = output / "clips-video_train.tfrecord-00009"  # of an older data set, with its marker
    left.write_bytes(b"")
    done = json.loads((output / (changed + token_files.DONE)).read_text()) | {"name": left.name}
    (output / (left.name + token_files.DONE)).write_text(json.dumps(done))
    somebodys = output / "laion.tfrecord-00000-of-00001"
    somebodys.write_bytes(b"precious")
    encode(bundle(tmp_path / "another", 1.01), source, output)
    assert len(renewed()) == 6 and not list(output.glob(f"{left.name}*"))
    assert somebodys.read_bytes() == b"precious"


def test_a_damaged_file_is_named(tokenizer, data, tmp_path):
    source = tmp_path / "set"
    shutil.copytree(data, source)
    test_seqio_source.damage(source / "clips-video_train.tfrecord-00002", 1)
    with pytest.raises(UserError, match=r"video_train\.tfrecord-00002: corrupt; write the data"):
        encode(tokenizer, source, tmp_path / "codes")
    shutil.copy(data / "clips-video_train.tfrecord-00002", source)
    logged = encode(tokenizer, source, tmp_path / "codes")
    assert any(line.startswith("4 files are encoded already") for line in logged)


def test_tokens_that_are_being_replaced_are_not_complete(encoded, data, tmp_path, monkeypatch):
    output = tmp_path / "codes"
    shutil.copytree(encoded, output)
    other = bundle(tmp_path / "another", 1.01)

    def stopping(encoder, file, sha256):
        encode_file(encoder, file, sha256)
        raise KeyboardInterrupt

    encode_file = encode_dataset.encode_file
    monkeypatch.setattr(encode_dataset, "encode_file", stopping)
    with pytest.raises(KeyboardInterrupt):
        encode_dataset.run(opened(other, data, output), print, Silent)
    with pytest.raises(UserError, match=r"no codes\.json: not stored tokens, or not all of them"):
        token_files.read_manifest(output)


def test_stale_tokens_are_refused_naming_both(encoded, tokenizer, tmp_path):
    config = tokens_config(encoded, tokenizer)
    then, now = config.fingerprint, bundle(tmp_path / "another", 1.01)
    _, stage1, other = checkpoint.load_tokenizer(now)
    with pytest.raises(UserError, match=f"stale: encoded with tokenizer '{then}'.*'{other}'"):
        batches.make(training.with_tokenizer(config, stage1, other), lambda captions: {}).__next__()
    longer = config.copy_and_resolve_references()
    longer.text.length = 50
    with pytest.raises(UserError, match="encoded with text 'bytes, 48 ids'.*'bytes, 50 ids'"):
        next(read(longer))
    embedded = config.copy_and_resolve_references()
    embedded.text.cached = True
    # Unlike other presets the tiny one caches embeddings.
    plain = config.copy_and_resolve_references()
    plain.text.cached = False
    assert next(read(plain))[0].keys() == {"tokens", "text_ids"}


def test_a_directory_without_tokens_is_named(data, tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"set: has no codes\.json"):
        next(read(tokens_config(data, tokenizer)))
    config = tiny.tokenizer_config(data=dict(source="codes"))
    with pytest.raises(UserError, match="stage 1 trains on pixels"):
        batches.make(config, lambda captions: {})
    small = write(tmp_path / "small", size=(11, 12, 16))
    with pytest.raises(UserError, match="clips of 12x16 pixels"):
        encode(tokenizer, small, tmp_path / "out")


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_no_host_loses_or_repeats_a_sample_of_an_epoch(encoded, tokenizer, hosts):
    config = tokens_config(encoded, tokenizer)
    mesh = np.arange(hosts).reshape(hosts, 1, 1, 1)
    streams = [read(config, rows=host_rows(4, mesh, host)) for host in range(hosts)]
    steps = []
    for _ in range(CLIPS):
        steps.append([row for stream in streams for row in next(stream)[0]["tokens"]])
    rows = [row.tobytes() for step in steps for row in step]
    for epoch in range(4):
        assert len(set(rows[epoch * CLIPS : (epoch + 1) * CLIPS])) == CLIPS
    # Started anywhere, by any number of hosts: the same samples.
    late = next(read(config, size=4, start=7 * 4))[0]["tokens"]
    np.testing.assert_array_equal(late, steps[7])


def test_mixtures_keep_their_counts(encoded, tokenizer, tmp_path):
    other = tmp_path / "codes"
    encode(tokenizer, write(tmp_path / "set", 255 - FRAMES), other)
    config = tokens_config(encoded, tokenizer)
    sources = {str(encoded): 0.75, str(other): 0.25}
    first = {row.tobytes() for row in next(read(config, size=CLIPS))[0]["tokens"]}
    rows = [row.tobytes() for row in next(read(config, size=1000, sources=sources))[0]["tokens"]]
    assert sum(row in first for row in rows) == 750 and len(set(rows)) == 2 * CLIPS


class StoredTokens:
    """An `ExampleSource` of a directory of tokens; as in training the seed is (0, index)."""

    def __init__(self, directory, index):
        files = json.loads((Path(directory) / token_files.MANIFEST).read_text())["files"]
        self.paths = [os.path.join(directory, file["name"]) for file in files["video_train"]]
        self.records = records.Records(self.paths)
        self.order = mixture.Order(len(self.records), (0, index))

    def decode(self, numbers):
        tf = tensorflow.tensorflow()

        def parse(number):
            record = tf.numpy_function(
                lambda n: self.records[self.order(int(n))], [number], tf.string
            )
            feature = {"codes": tf.io.FixedLenFeature([], tf.string)}
            return tf.io.parse_single_example(tf.ensure_shape(record, ()), feature)

        return numbers.map(parse)


def test_batches_are_the_examples_of_the_seqio_mixture(encoded, tokenizer, tmp_path):
    from phenaki.data import seqio_source

    other = tmp_path / "codes"
    encode(tokenizer, write(tmp_path / "set", 255 - FRAMES), other)
    config = tokens_config(encoded, tokenizer)
    sources = {str(encoded): 0.75, str(other): 0.25}
    place = dict(start=9, rows=HostRows(5, (0, 3, 4)))
    stream = mixture.Stream(**place)
    parts = [StoredTokens(directory, index) for index, directory in enumerate(sources)]
    tf = tensorflow.tensorflow()
    features = {"codes": tensorflow.seqio().ContinuousFeature(dtype=tf.string, rank=0)}
    mix = seqio_source.mix("tokens", parts, list(sources.values()), features, "train", 0, stream)
    examples = itertools.islice(
        seqio_source.dataset(mix, "train", 0, stream).as_numpy_iterator(), 60
    )
    theirs = np.stack([np.frombuffer(example["codes"], "<u2") for example in examples])
    read_on = read(config, sources=sources, **place)
    ours = [arrays["tokens"] for arrays, _ in itertools.islice(read_on, 20)]
    np.testing.assert_array_equal(np.concatenate(ours), theirs)


def test_training_on_tokens_is_training_on_pixels(tokenizer, tmp_path):
    source = write(tmp_path / "set", size=(11, 16, 16))  # no random crops
    # Without embeddings, which are stored in bfloat16.
    config = tiny.maskgit_config(text=dict(cached=False))
    encode(tokenizer, source, tmp_path / "codes", config)
    losses = []
    for kind, where in (("tfds", source), ("codes", tmp_path / "codes")):
        config = tiny.maskgit_config(
            data=dict(source=kind, sources=str(where), batch=8, image_batch=8),
            train=dict(steps=6, log_every=1),
            text=dict(cached=False),
        )
        run = tmp_path / f"run_{kind}"
        training.train(config, tokenizer, run, devices=jax.devices()[:1])
        losses.append([line["loss/total"] for line in logs.read(run)])
    assert len(losses[0]) == 6
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_the_estimate_writes_nothing(tokenizer, data, tmp_path):
    logged = "\n".join(encode(tokenizer, data, tmp_path / "codes", estimate=True))
    assert "video_train: 10 of 24 tokens: 480 B of tokens" in logged
    assert "6 files to encode on this host: about" in logged
    assert not (tmp_path / "codes").exists()


def test_the_manifest_holds_the_origin(encoded, tokenizer):
    manifest = json.loads((encoded / token_files.MANIFEST).read_text())
    assert manifest["records"] == {"image_train": IMAGES, "video_train": CLIPS}
    assert manifest["sizes"]["video"] == 24 and manifest["sizes"]["image"] == 4
    assert manifest["origin"]["pixels"] == "11x16x16 at 8 fps"
    assert manifest["origin"]["tokenizer"] == checkpoint.load_tokenizer(tokenizer)[2]


def test_what_is_not_of_this_command_is_never_touched(encoded, tokenizer, data, tmp_path):
    shard = next(data.glob("*tfrecord*0")).name
    shutil.copytree(data, tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "laion.tfrecord-00000-of-00001").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(data)
    cases = {
        "other": r"other: is not empty \(it has clips-image_train",
        "mine": r"mine: is not empty \(it has laion.tfrecord-00000-of-00001\)",
        "link": f"link: must not be --input={data};",
        "link/out": f"link/out: must not lie inside --input={data};",
    }
    before = contents(data), contents(tmp_path / "other"), contents(tmp_path / "mine")
    for name, line in cases.items():
        for estimate in (False, True):
            with pytest.raises(UserError, match=line):
                encode(tokenizer, data, tmp_path / name, estimate=estimate)
    with pytest.raises(UserError, match="must not contain --"):
        encode(tokenizer, data, tokenizer.parent)
    assert (contents(data), contents(tmp_path / "other"), contents(tmp_path / "mine")) == before
    assert (data / shard).is_file()


def test_a_tokenizer_that_is_replaced_meanwhile_is_noticed(tokenizer, data, tmp_path, caplog):
    encoder = opened(bundle(tmp_path / "tokenizer", 1.0), data, tmp_path / "codes")
    encode_dataset.run(encoder, lambda line: None, Silent)
    assert not caplog.records
    encoder = opened(tmp_path / "tokenizer", data, tmp_path / "again")
    then = encoder.origin.tokenizer
    bundle(tmp_path / "tokenizer", 1.01)
    encode_dataset.run(encoder, lambda line: None, Silent)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "tokenizer: changed while this ran (" in line and f"was {then})" in line
    assert token_files.read_manifest(tmp_path / "again")["origin"]["tokenizer"] == then


def test_hosts_that_encoded_with_two_tokenizers_are_noticed(encoded, tokenizer, data, tmp_path):
    shutil.copytree(encoded, tmp_path / "codes")
    encoder = opened(bundle(tmp_path / "another", 1.01), data, tmp_path / "codes")
    paths = [encoder.output_of(file) for file in format.files(data)]
    with pytest.raises(UserError, match="was encoded with another tokenizer or config"):
        token_files.finish(str(tmp_path / "codes"), {"all": paths}, encoder.origin, encoder.sizes)
