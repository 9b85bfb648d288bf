"""Parallel decoding and guidance: PAPER_FACTS section 5, step by step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki import build, sampling
from phenaki.types import Text

CODEBOOK = 7
MASK = CODEBOOK


def lookup(length):
    """A fixed logits function: what a position predicts depends on every code."""
    random = np.random.default_rng(0)
    own = random.normal(size=(length, CODEBOOK), scale=2).astype(np.float32)
    mixed = random.normal(size=(CODEBOOK + 1, CODEBOOK)).astype(np.float32)

    def logits(codes):
        return own + jnp.take(mixed, codes, axis=0).mean(1, keepdims=True)

    return logits


@functools.partial(jax.jit, static_argnames=("logits", "steps"))
def decode(logits, codes, keys, temperature, steps):
    return sampling.decode(
        logits, codes, keys, steps=steps, choice_temperature=temperature, mask_id=MASK
    )


def keys_of(rows):
    return jax.random.split(jax.random.key(0), rows)


def reference(logits, codes, keys, temperature, steps):
    """The sampler again, one row and one rule at a time; also what each step carries on."""
    codes, history = np.array(codes), []
    unknown_at_start = (codes == MASK).sum(-1)
    filled = codes.copy()
    for step in range(steps):
        answer = np.asarray(logits(jnp.asarray(codes)))
        for row, key in enumerate(keys):
            key_code, key_choice = jax.random.split(jax.random.fold_in(key, step))
            unknown = np.flatnonzero(codes[row] == MASK)
            drawn = np.asarray(jax.random.categorical(key_code, answer[row]))
            noise = np.asarray(jax.random.gumbel(key_choice, codes[row].shape))
            filled[row] = codes[row]
            filled[row, unknown] = drawn[unknown]
            done = (step + 1) / steps
            gamma = min(max(math.cos(math.pi * done / 2), 1e-6), 1)
            again = max(1, min(len(unknown) - 1, math.floor(unknown_at_start[row] * gamma)))
            confidence = {}
            for place in unknown:
                log_p = answer[row, place] - np.logaddexp.reduce(answer[row, place])
                confidence[place] = log_p[drawn[place]] + temperature * (1 - done) * noise[place]
            codes[row] = filled[row]
            codes[row, sorted(confidence, key=confidence.get)[:again]] = MASK
        history.append(codes.copy())
    return filled, np.stack(history)


@pytest.mark.parametrize(("steps", "temperature"), [(5, 4.5), (30, 0.0)])
def test_decoding_is_the_rule(steps, temperature):
    length = 21
    codes = np.random.default_rng(1).integers(CODEBOOK, size=(5, length)).astype(np.int32)
    for row, known in enumerate((0, 7, length - 1, length, 11)):
        codes[row, known:] = MASK
    codes[4] = np.where(np.arange(length) % 3, codes[4], MASK)  # gaps, not only a prefix
    logits, keys = lookup(length), keys_of(5)
    out = decode(logits, codes, keys, temperature, steps)
    filled, history = reference(logits, codes, keys, temperature, steps)
    np.testing.assert_array_equal(out.history, history)
    np.testing.assert_array_equal(out.codes, filled)


def test_the_papers_counts():
    length, steps = 1536, 12
    codes = jnp.full((2, length), MASK)
    out = decode(lookup(length), codes, keys_of(2), 4.0, steps)
    masked = (np.asarray(out.history) == MASK).sum(-1)
    left = np.concatenate([np.full((1, 2), length), masked[:-1], np.zeros((1, 2), int)])
    expected = [14, 39, 64, 89, 112, 132, 151, 167, 181, 190, 197, 200]
    np.testing.assert_array_equal(-np.diff(left, axis=0), np.stack([expected] * 2, 1))


@pytest.mark.parametrize("length", [1, 2, 24])
def test_known_codes_stay_and_no_mask_is_left(length):
    codes = np.random.default_rng(2).integers(CODEBOOK, size=(4, length)).astype(np.int32)
    known = np.arange(length) < np.array([[0], [1], [length // 2], [length]])
    codes = np.where(known, codes, MASK)
    out = decode(lookup(length), codes, keys_of(4), 8.0, 30)  # more steps than codes
    np.testing.assert_array_equal(np.asarray(out.codes)[known], codes[known])
    assert (np.asarray(out.codes) < MASK).all()
    before, *rest = [codes, *np.asarray(out.history)]
    for after in rest:  # what is fixed is never revisited
        kept = before != MASK
        np.testing.assert_array_equal(after[kept], before[kept])
        before = after


def test_a_row_does_not_depend_on_its_batch():
    codes, keys = jnp.full((4, 24), MASK), keys_of(4)
    codes = codes.at[1, :6].set(1)
    together = decode(lookup(24), codes, keys, 4.0, 6)
    for row in range(4):
        alone = decode(lookup(24), codes[row : row + 1], keys[row : row + 1], 4.0, 6)
        np.testing.assert_array_equal(alone.codes[0], together.codes[row])
    assert len(np.unique(together.codes, axis=0)) == 4


def test_guidance_is_the_papers_formula():
    conditional, unconditional = jnp.asarray([1.0, 2.0, -3.0]), jnp.asarray([0.5, 2.5, 1.0])
    np.testing.assert_array_equal(sampling.guide(conditional, unconditional, 0.0), conditional)
    np.testing.assert_allclose(
        sampling.guide(conditional, unconditional, 6.0), [7 - 3, 14 - 15, -21 - 6]
    )


PROMPTS = ["a red circle moves left", "a blue square moves up"]


def by_hand(scale):
    """What decoding gives when the tiny model's networks are called one by one."""
    model = tiny.phenaki()
    config = model.config
    ids = jnp.asarray(build.vocabulary(config).encode(PROMPTS))
    text = build.embed(build.text_encoder(config), model.params["text"], ids)
    nothing = Text(text.embeddings + 1, jnp.zeros_like(text.mask))
    network = build.maskgit(config)
    keys = [jax.random.fold_in(jax.random.key(5), row) for row in range(2)]

    @jax.jit
    def sample(params):
        def logits(codes):
            answer, without = (network.apply({"params": params}, codes, t) for t in (text, nothing))
            return answer + scale * (answer - without) if scale else answer

        codes = jnp.full((2, model.spec.tokens()), network.mask_id)
        options = dict(steps=3, choice_temperature=2.0, mask_id=network.mask_id)
        return sampling.decode(logits, codes, jnp.stack(keys), **options)

    return sample(model.params["maskgit"])


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_one_doubled_batch_guides_as_two_calls_do(scale):
    model = tiny.phenaki()
    model.generate(PROMPTS, seed=5, guidance=scale, choice_temperature=2.0)
    expected = by_hand(scale)
    np.testing.assert_array_equal(model.codes, expected.codes)
    np.testing.assert_array_equal(model.history, expected.history)


def test_guidance_of_zero_is_exactly_conditional():
    model = tiny.phenaki()
    codes = jnp.full((2, model.spec.tokens()), 32, jnp.int32)
    ids = build.vocabulary(model.config).encode(PROMPTS)
    arguments = (model.params, codes, ids, keys_of(2), 0.0, 2.0)
    off, zero = (model._sample(*arguments, steps=3, guided=guided) for guided in (False, True))
    np.testing.assert_array_equal(off.codes, zero.codes)
    np.testing.assert_array_equal(off.history, zero.history)


def test_what_may_change_from_call_to_call_compiles_nothing():
    model = tiny.phenaki()
    still = np.zeros((2, 16, 16, 3), np.float32)

    def sample(prompts=PROMPTS, seed=0, guidance=2.0, choice_temperature=1.0, image=None):
        options = dict(seed=seed, guidance=guidance, choice_temperature=choice_temperature)
        if image is None:
            model.generate(prompts, **options)
        else:
            model.animate(image, prompts, **options)
        return model.history

    first = sample()
    compiled = model._sample._cache_size()
    others = [
        sample(prompts=["then a circle", None]),
        sample(seed=2**31 + 1),
        sample(guidance=5),
        sample(guidance=np.float32(0.1)),
        sample(choice_temperature=7),
        sample(image=still),
    ]
    assert model._sample._cache_size() == compiled
    assert all(np.any(first != other) for other in others)
