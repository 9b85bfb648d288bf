"""SentencePiece vocabularies and class names as captions."""

import io
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from configs import maskgit
from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.text import vocabulary
from phenaki.text.one_hot import OneHot

SHARED = Path(__file__).parents[1] / "../shared/data/t5"
REAL = SHARED / "t5_cc_all_32000_100extra.reconstructed.model"
needs_real = pytest.mark.skipif(not REAL.is_file(), reason="needs shared/data")
# Encodings that the documentation of T5 prints.
DOCUMENTED = {
    "Studies have shown that owning a dog is good for you": (
        6536, 43, 2008, 24, 293, 53, 3, 9, 1782, 19, 207, 21, 25
    ),
    "translate English to German: The house is wonderful.": (
        13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5
    ),
    "The <extra_id_0> walks in <extra_id_1> park": (37, 32099, 10681, 16, 32098, 2447),
}  # fmt: skip
CAPTIONS = ["a red circle moves left", "Ünïcödé ☃", "", "  ", None, "tab\tand\nline", "\udcff \x00"]


def trained(**marks) -> bytes:
    """A tiny SentencePiece model with T5's marks, unless given others."""
    from sentencepiece import SentencePieceTrainer

    words = [f"{a} {b} moves {c}" for a in ("red", "blue") for b in "xyz" for c in ("up", "down")]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_writer=model,
        vocab_size=30,
        model_type="bpe",
        minloglevel=2,
        **dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1) | marks,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "tiny.model"
    path.write_bytes(trained())
    return path


@needs_real
@pytest.mark.parametrize("text", DOCUMENTED)
def test_documented_encodings(text):
    ids = vocabulary.sentencepiece(REAL, 20).encode([text])[0]
    pieces = DOCUMENTED[text]
    assert ids.tolist() == [*pieces, 1] + [0] * (19 - len(pieces))


@needs_real
def test_the_real_vocabulary_has_t5s_size():
    assert vocabulary.sentencepiece(REAL, 8).size == 32_100


def test_pieces_an_end_mark_and_padding(model):
    words = vocabulary.sentencepiece(model, 12)
    ids = words.encode(["red x moves up", None, " \n", ""])
    assert ids.dtype == np.int32 and (ids[1:] == 0).all()
    end = int(np.argmax(ids[0] == vocabulary.EOS_ID))
    assert 0 < end < 12 and (ids[0, :end] > 2).all() and (ids[0, end + 1 :] == 0).all()
    assert words.size == 30
    assert words.decode(ids) == ["red x moves up", "", "", ""]


def test_a_long_caption_is_cut_and_that_is_told(model):
    words = vocabulary.sentencepiece(model, 5)
    captions = ["red", "red x moves up blue y moves down", None]
    assert words.is_cut(captions).tolist() == [False, True, False]
    ids = words.encode(captions)
    whole = vocabulary.sentencepiece(model, 40).encode(captions)
    assert ids[1].tolist() == [*whole[1, :4], vocabulary.EOS_ID]
    assert "red x moves up blue y moves down".startswith(words.decode(ids)[1])


def test_ids_are_seqios(model):
    from phenaki.data import tensorflow

    for path in [model, *([REAL] if REAL.is_file() else [])]:
        ours = vocabulary.sentencepiece(path, 64)
        theirs = tensorflow.seqio().SentencePieceVocabulary(str(path))
        assert (theirs.pad_id, theirs.eos_id, theirs.unk_id) == (0, 1, 2)
        assert theirs.vocab_size == ours.size
        for text in filter(None, CAPTIONS[:-1]):
            ids = ours.encode([text])[0]
            assert ids[ids > 1].tolist() == theirs.encode(text)


def test_no_caption_is_too_odd(model):
    ids = vocabulary.sentencepiece(model, 16).encode(CAPTIONS)
    assert (ids.any(-1) == [True, True, False, False, False, True, True]).all()


def test_a_vocabulary_needs_no_tensorflow(model):
    code = (
        "import sys; from phenaki.text import vocabulary as v; "
        f"v.sentencepiece({str(model)!r}, 8).encode(['red']); "
        "assert not {'tensorflow', 'seqio', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "content, message",
    (
        (None, "no such vocabulary; get gs://t5-data/vocabs/cc_all.32000.100extra"),
        (b"", "is no SentencePiece model, or is cut short"),
        (b"red\nblue\n", "is no SentencePiece model, or is cut short"),
        (dict(pad_id=-1, eos_id=2, unk_id=0, bos_id=1), "its special ids are {'pad': -1"),
        (0.5, "is no SentencePiece model, or is cut short"),
    ),
)
def test_a_model_that_is_none(content, message, tmp_path):
    path = tmp_path / "bad.model"
    if isinstance(content, dict):
        content = trained(**content)
    elif isinstance(content, float):
        content = trained()[:-100]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="^" + str(path)) as caught:
        vocabulary.sentencepiece(path, 8)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def text_config(**fields):
    config = maskgit.get_config("small")
    config.text.update(fields)
    return config


def test_a_vocabulary_is_chosen_by_config(model):
    words = factory.vocabulary(text_config(vocabulary=str(model)))
    assert isinstance(words, vocabulary.SentencePieceVocabulary) and words.length == 72
    for fields, message in (
        (dict(vocabulary=str(model), vocab_size=29), "vocab_size=29 must be at least 30, the"),
        (dict(vocab_size=258), "config.text.vocab_size=258 must be at least 259, the number of"),
        (dict(vocabulary="words"), "config.text.vocabulary='words' must be 'bytes', a Sentence"),
        (dict(length=1), "config.text.length=1 must be at least 2"),
    ):
        with pytest.raises(UserError, match="config.text.*" + message.split("config.text.")[-1]):
            factory.vocabulary(text_config(**fields))


# --- class names

NAMES = "walk\nrun fast\n\n  jump \n"


@pytest.fixture
def names(tmp_path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text(NAMES)
    return path


def test_a_caption_is_the_name_of_a_class(names):
    classes = vocabulary.labels(names)
    ids = classes.encode(["jump", " walk\n", None, "", "run fast"])
    assert ids.tolist() == [[3], [1], [0], [0], [2]] and ids.dtype == np.int32
    assert classes.decode(ids) == ["jump", "walk", "", "", "run fast"]
    assert not classes.is_cut(["jump", "walk"]).any() and (classes.length, classes.size) == (1, 4)
    with pytest.raises(UserError) as caught:
        classes.encode(["walk", "jumps"])
    assert str(caught.value) == (
        f"caption 'jumps' must be a class name of {names}; did you mean jump?"
    )
    with pytest.raises(TypeError, match="list of strings"):
        classes.encode("walk")


@pytest.mark.parametrize(
    "text, message", (("a\nb\na\n", "names 'a' twice"), ("\n \n", "no class names"))
)
def test_names_that_cannot_be_classes(text, message, tmp_path):
    path = tmp_path / "labels.txt"
    with pytest.raises(UserError, match="no such file of class names"):
        vocabulary.labels(path)
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        vocabulary.labels(path)


def test_names_are_read_as_people_save_them(tmp_path):
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfwalk\r\nrun\r\n")
    assert vocabulary.labels(tmp_path / "marked.txt").names == ("walk", "run")
    (tmp_path / "other.txt").write_text("walk\nfl\u00e2ner\n", encoding="latin-1")
    with pytest.raises(UserError, match="other.txt: is not a text file in UTF-8"):
        vocabulary.labels(tmp_path / "other.txt")


def class_config(names, **fields):
    text = maskgit.get_config("classes").text.to_dict() | {"vocabulary": f"labels:{names}"}
    config = tiny.whole_config()
    config.text = ConfigDict(text | {"width": 3} | fields)
    return config


def test_sizes_of_class_conditional_configs(names):
    assert factory.vocabulary(class_config(names)).size == 4
    for field, given, size in (("width", 10, 3), ("length", 72, 1)):
        with pytest.raises(UserError, match=f"config.text.{field}={given} must .* is {size}."):
            factory.vocabulary(class_config(names, **{field: given}))


def test_the_projection_of_text_is_a_table_of_classes(names):
    config = class_config(names)
    encoder, params = factory.text_encoder(config), factory.text_params(config)
    assert (encoder, params) == (OneHot(3), {})
    ids = factory.vocabulary(config).encode(["run fast", "walk", None])
    text = factory.embed(encoder, params, jnp.asarray(ids))
    assert text.embeddings[:, 0].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert text.mask.tolist() == [[True], [True], [False]]
    network = factory.maskgit(config)
    tokens = jnp.zeros((3, factory.video_spec(config).tokens()), jnp.int32)
    weights = tiny.random_params(network, tokens, text)
    key_value, _ = network.apply({"params": weights}, text, method="context")
    kernel, bias = (weights["text_key_value"][name] for name in ("kernel", "bias"))
    for row, number in ((0, 1), (1, 0)):
        np.testing.assert_allclose(key_value[:, row, 0], kernel[number] + bias, atol=1e-6)
    # And no class is no text: the same logits as the network without any.
    apply = jax.jit(network.apply)
    logits = apply({"params": weights}, tokens, text)
    none = apply({"params": weights}, tokens, text.dropped(jnp.zeros(3, bool)))
    np.testing.assert_allclose(logits[2], none[2], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
