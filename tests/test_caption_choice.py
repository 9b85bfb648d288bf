"""Which of several captions an example has: another one in every epoch, in pixels and tokens."""

import itertools
import json

import clip_sets
import numpy as np
import pytest
from test_encode_dataset import bundle, encode, opened, tokens_config

from phenaki.data import batches, clip_records, clips, format, tensorflow
from phenaki.data.host_rows import HostRows
from phenaki.data.stored_clips import StoredClips
from phenaki.errors import UserError
from phenaki.evaluation.task import Task, with_template

SEVERAL = {"0": ["a", "b", "c"], "1": ["d"], "2": [], "3": ["e", "f"], "4": list("uvwxyz")}
SPEC = clip_records.ClipSize(11, 16, 16, 8.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips whose brightness is their number, with none to six captions."""
    records = []
    for key, (first, *more) in ((key, texts or [None]) for key, texts in SEVERAL.items()):
        frames = format.encode(np.full((11, 16, 16, 3), 40 * int(key), np.uint8), "png")
        source = (key, "", (16, 16), 0.0, 8.0)
        records.append(format.ClipRecord(key, frames, first, *source, more_captions=tuple(more)))
    form = format.ClipFormat(11, 8.0, 16, 16, "png")
    directory = tmp_path_factory.mktemp("data") / "set"
    return clip_sets.write(directory, form, {"video_train": records}, 3)


def taken(examples, epochs):
    """Key -> its captions, by epoch."""
    seen = {key: [] for key in SEVERAL}
    for example in itertools.islice(examples, epochs * len(SEVERAL)):
        seen[str(round(example["video"].mean() / 40))].append(example["caption"])
    return seen


def examples(data, **changes):
    return clips.examples(data, split="train", kind="video", spec=SPEC, seed=5, **changes)


def test_every_epoch_has_another_caption_and_all_have_their_turn(data):
    seen = taken(examples(data), 6)
    for key, texts in SEVERAL.items():
        turns = np.reshape(seen[key], (-1, max(1, len(texts))))
        assert all(set(turn) == set(texts or [None]) for turn in turns)
    assert len(set(seen["4"])) == 6 and sorted(seen["3"]) == ["e"] * 3 + ["f"] * 3
    assert seen == taken(examples(data), 6)
    late = taken(examples(data, start=3 * len(SEVERAL)), 3)
    assert late == {key: texts[3:] for key, texts in seen.items()}


@pytest.mark.parametrize("changes", [dict(captions="first"), dict(shuffle=False)])
def test_first_captions_are_the_first(changes, data):
    seen = taken(examples(data, **changes), 2)
    assert seen == {key: [*(texts or [None])[:1] * 2] for key, texts in SEVERAL.items()}
    evaluated = StoredClips(data, "train", "video", SPEC).take(range(5))
    assert [one["caption"] for one in evaluated] == ["a", "d", None, "e", "u"]


def test_captions_with_a_template_are_the_prompts_of_table_1():
    row = Task("text_to_video", ("fid",), 11, prompt="a video of {}")
    assert with_template(row, "{}").prompt == "a video of {}"
    assert with_template(row, "a clip of {}").prompt == "{}"


def test_another_choice_is_refused(data):
    with pytest.raises(UserError, match="config.data.captions='last' must be one of sampled"):
        examples(data, captions="last")


def test_data_sets_without_several_captions_are_still_read(data, tmp_path):
    (tmp_path / "set").mkdir()
    tf = tensorflow.tensorflow()
    for path in data.iterdir():
        if path.name == "metadata.json":
            facts = json.loads(path.read_text())
            assert facts.pop("caption_template") == "{}"
            (tmp_path / "set" / path.name).write_text(json.dumps(facts))
            continue
        if ".tfrecord" not in path.name:
            (tmp_path / "set" / path.name).write_bytes(path.read_bytes())
            continue
        with tf.io.TFRecordWriter(str(tmp_path / "set" / path.name)) as writer:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                example = tf.train.Example.FromString(record)
                del example.features.feature["more_captions"]
                writer.write(example.SerializeToString())
    seen = taken(examples(tmp_path / "set"), 2)
    assert seen == {key: [*(texts or [None])[:1] * 2] for key, texts in SEVERAL.items()}


def test_tokens_have_the_captions_and_embeddings_of_pixels(data, tmp_path):
    tokenizer = bundle(tmp_path / "tokenizer", 1.0)
    encode(tokenizer, data, tmp_path / "codes")
    encoder = opened(tokenizer, data, tmp_path / "codes")
    for captions in clips.CAPTIONS:
        config = tokens_config(tmp_path / "codes", tokenizer, captions=captions)
        pixels = config.copy_and_resolve_references()
        pixels.data.update(source="tfds", sources=str(data))
        streams = [_rows(one) for one in (pixels, config)]
        for (_, texts), (arrays, same) in itertools.islice(zip(*streams, strict=True), 6):
            assert texts == same
            wanted = encoder.text(texts)
            np.testing.assert_array_equal(arrays["text_ids"], wanted["text_ids"])
            mask = wanted["text_ids"] > 0
            close = dict(rtol=0.02, atol=0.02)  # bfloat16
            np.testing.assert_allclose(arrays["text"][mask], wanted["text"][mask], **close)


def _rows(config):
    source = batches._source(
        config.data, config.video, config.seed, config.text, config.fingerprint
    )
    return source("video", HostRows.whole(4), 0, None)
