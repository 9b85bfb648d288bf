"""The byte vocabulary and the T5 encoder: ids, position buckets, padding, parity, separability."""

from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.io import clean_text
from phenaki.text import cache
from phenaki.text.cache import CachedText
from phenaki.text.t5 import T5Encoder, random_encoder, relative_bucket
from phenaki.text.vocabulary import EOS_ID, PAD_ID, ByteVocabulary

GOLDEN = Path(__file__).parent / "golden" / "t5_tiny.npz"
# What `make_t5_golden.py` built.
TINY = T5Encoder(vocab_size=32, width=16, heads=4, head_dim=6, layers=2, mlp_dim=24)


def test_ids_are_those_of_byte_vocabularies():
    # Values of seqio.ByteVocabulary().encode("a\0é"), its end mark, and padding.
    assert ByteVocabulary(7).encode(["a\0é"]).tolist() == [[100, 3, 198, 172, 1, 0, 0]]
    assert ByteVocabulary(7).size == 259


def test_a_missing_or_blank_caption_is_all_padding():
    ids = ByteVocabulary(5).encode([None, "", " \n", "x"])
    assert (ids[:3] == PAD_ID).all()
    assert ids[3].tolist() == [123, EOS_ID, 0, 0, 0]
    assert ids.dtype == np.int32


def test_truncation_keeps_the_end_mark_and_is_told():
    vocabulary = ByteVocabulary(5)
    captions = ["abcd", "abcde", "abcdé", None]
    ids = vocabulary.encode(captions)
    assert ids[:3, -1].tolist() == [EOS_ID] * 3
    assert vocabulary.is_cut(captions).tolist() == [False, True, True, False]
    assert vocabulary.decode(ids) == ["abcd", "abcd", "abcd", ""]


def test_decode_returns_what_fits_and_drops_half_characters():
    assert ByteVocabulary(16).decode(ByteVocabulary(16).encode(["a naïve cat"])) == ["a naïve cat"]
    assert ByteVocabulary(4).decode(ByteVocabulary(4).encode(["abé"])) == ["ab"]


@pytest.mark.parametrize(
    "text", ["a red circle", " a red\n  circle", "a\tred\u00a0circle\r\n", "a \u3000red circle\x1f"]
)
def test_prompts_have_the_ids_of_the_caption_they_are_cleaned_to(text):
    vocabulary, caption = ByteVocabulary(13), clean_text.clean(text)
    assert caption == "a red circle"
    assert (vocabulary.encode([text]) == vocabulary.encode([caption])).all()
    assert vocabulary.decode(vocabulary.encode([text])) == [caption]
    assert not vocabulary.is_cut([text]).any()  # what is cleaned away needs no room
    assert vocabulary.count(text) == 13


def test_half_characters_of_flags_and_json_are_read_alike():
    ids = ByteVocabulary(8).encode(["a\udcff", "a\ud83d", "a?"])
    assert (ids == ids[2]).all()


def test_one_string_is_not_a_list_of_captions():
    with pytest.raises(TypeError, match="list of strings"):
        ByteVocabulary(8).encode("red")


def test_a_vocabulary_without_room_is_refused():
    with pytest.raises(ValueError, match="length=1"):
        ByteVocabulary(1)


def bucket_by_integers(relative: int) -> int:
    """The bucket without logarithms: 8 * 2^(k/2) <= distance is distance^2 / 64 >= 2^k."""
    distance = abs(relative)
    if distance >= 8:
        distance = min(15, 8 + (distance * distance // 64).bit_length() - 1)
    return distance + (16 if relative > 0 else 0)


def test_relative_buckets():
    relative = np.arange(-512, 513)
    expected = [bucket_by_integers(int(value)) for value in relative]
    assert relative_bucket(relative).tolist() == expected
    np.testing.assert_array_equal(relative_bucket(relative), np.load(GOLDEN)["relative_bucket"])


def apply(params: dict, ids: np.ndarray, encoder: T5Encoder = TINY) -> np.ndarray:
    return np.asarray(jax.jit(encoder.apply)({"params": params}, jnp.asarray(ids)))


def golden() -> tuple[dict, dict]:
    arrays = dict(np.load(GOLDEN))
    names = [name for name in arrays if name.startswith("params/")]
    params = flax.traverse_util.unflatten_dict(
        {name.removeprefix("params/"): jnp.asarray(arrays.pop(name)) for name in names}, sep="/"
    )
    return arrays, params


def test_parity_with_the_reference_implementation():
    arrays, params = golden()
    ids = arrays["ids"]
    output = apply(params, ids)
    np.testing.assert_allclose(output[ids > 0], arrays["output"], atol=1e-5, rtol=0)


def test_parameter_names_are_those_of_t5x():
    _, params = golden()
    shapes = jax.eval_shape(TINY.init, jax.random.key(0), jnp.ones((1, 4), jnp.int32))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_padding_does_not_reach_the_text():
    arrays, params = golden()
    ids = arrays["ids"][2:3, :40]
    short = apply(params, ids)
    for padding in (1, 24, 88):
        padded = apply(params, np.pad(ids, ((0, 0), (0, padding))))
        np.testing.assert_allclose(padded[:, :40], short, atol=1e-5, rtol=0)


def test_an_empty_caption_stays_finite():
    _, params = golden()
    assert np.isfinite(apply(params, np.zeros((2, 8), np.int32))).all()


def test_bfloat16_computes_in_bfloat16_and_stays_close():
    arrays, params = golden()
    output = apply(params, arrays["ids"], TINY.clone(dtype=jnp.bfloat16))
    assert output.dtype == jnp.bfloat16
    error = np.abs(output.astype(np.float32)[arrays["ids"] > 0] - arrays["output"])
    assert error.mean() < 0.03 * np.abs(arrays["output"]).mean()


def random_features(captions: list[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    encoder = T5Encoder(259, 64, 8, 8, 1, 128, relpos_std=8.0, relpos_far=20.0)
    ids = ByteVocabulary(48).encode(captions)
    return apply(random_encoder(seed, encoder), ids, encoder), ids > 0


def test_random_encoder_repeats_itself_and_depends_on_the_seed():
    features = [random_features(["a red star"], seed)[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(features[0], features[1])
    assert np.abs(features[0] - features[2]).max() > 0.1


def test_a_caption_is_encoded_once():
    asked = []

    def embed(ids):
        asked.append(ids)
        return apply(random_encoder(0, TINY), ids % TINY.vocab_size)

    cached = CachedText(ByteVocabulary(12), embed)
    first = cached(["a", "b", None])
    again = cached(["c", "a", "c"])
    assert [(ids > 0).any(-1).sum() for ids in asked] == [2, 1]
    np.testing.assert_array_equal(again["text"][1], first["text"][0])
    whole = embed(ByteVocabulary(12).encode(["c", "a", "c"]))
    np.testing.assert_allclose(again["text"], whole, atol=1e-5)
    np.testing.assert_array_equal(again["text_ids"], ByteVocabulary(12).encode(["c", "a", "c"]))


def test_a_full_cache_starts_again(monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 2)
    cached = CachedText(ByteVocabulary(4), lambda ids: ids[..., None].astype(np.float32))
    for captions in (["a", "b"], ["c", "d"], ["a", "e"], ["e", "f"]):
        out = cached(captions)
        np.testing.assert_array_equal(out["text"][..., 0], out["text_ids"])


def test_words_are_linearly_separable_in_random_features():
    colours, shapes = ("red", "green", "blue", "white"), ("circle", "square", "star")
    templates = ("a {} {} moves left", "the {} {} goes up", "there is a {} {}", "{} {} moving down")
    rows = [(t, c, s) for t in range(4) for c in range(4) for s in range(3)]
    captions = [templates[t].format(colours[c], shapes[s]) for t, c, s in rows]
    features, mask = random_features(captions)
    mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    colour = np.array([c for _, c, _ in rows])
    held_out = np.array([(t + c + s) % 3 == 0 for t, c, s in rows])
    centred = mean - mean[~held_out].mean(0)
    train = centred[~held_out]
    ridge = train.T @ train + 1e-3 * len(train) * np.eye(mean.shape[1])
    weights = np.linalg.solve(ridge, train.T @ np.eye(4)[colour[~held_out]])
    assert ((centred[held_out] @ weights).argmax(1) == colour[held_out]).all()
