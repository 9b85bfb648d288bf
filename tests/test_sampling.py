"""Parallel decoding and guidance: docs/paper.md#sampler, step by step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki import sharding
from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.sampling import decode as sampling
from phenaki.sampling import draws, guidance, options, schedules
from phenaki.types import Text

CODEBOOK = 7
MASK = CODEBOOK


def lookup(length):
    """A fixed logits function: what a position predicts depends on every code."""
    random = np.random.default_rng(0)
    own = random.normal(size=(length, CODEBOOK), scale=2).astype(np.float32)
    mixed = random.normal(size=(CODEBOOK + 1, CODEBOOK)).astype(np.float32)

    def logits(tokens, step=0):
        return own + jnp.take(mixed, tokens, axis=0).mean(1, keepdims=True)

    return logits


@functools.partial(jax.jit, static_argnames=("logits", "steps"))
def decode(logits, tokens, keys, temperature, steps):
    return sampling.decode(
        logits, tokens, keys, steps=steps, choice_temperature=temperature, mask_id=MASK
    )


def keys_of(rows):
    return jax.random.split(jax.random.key(0), rows)


def reference(logits, tokens, keys, temperature, steps):
    """The sampler again, one row and one rule at a time; also what each step carries on."""
    tokens, history = np.array(tokens), []
    unknown_at_start = (tokens == MASK).sum(-1)
    filled = tokens.copy()
    for step in range(steps):
        answer = np.asarray(logits(jnp.asarray(tokens)))
        for row, key in enumerate(keys):
            key_code, key_choice = jax.random.split(jax.random.fold_in(key, step))
            unknown = np.flatnonzero(tokens[row] == MASK)
            drawn = np.asarray(jax.random.categorical(key_code, answer[row]))
            noise = np.asarray(jax.random.gumbel(key_choice, tokens[row].shape))
            filled[row] = tokens[row]
            filled[row, unknown] = drawn[unknown]
            done = (step + 1) / steps
            gamma = min(max(math.cos(math.pi * done / 2), 1e-6), 1)
            again = max(1, min(len(unknown) - 1, math.floor(unknown_at_start[row] * gamma)))
            confidence = {}
            for place in unknown:
                log_p = answer[row, place] - np.logaddexp.reduce(answer[row, place])
                confidence[place] = log_p[drawn[place]] + temperature * (1 - done) * noise[place]
            tokens[row] = filled[row]
            tokens[row, sorted(confidence, key=confidence.get)[:again]] = MASK
        history.append(tokens.copy())
    return filled, np.stack(history)


@pytest.mark.parametrize(("steps", "temperature"), [(5, 4.5), (30, 0.0)])
def test_decoding_is_the_rule(steps, temperature):
    length = 21
    tokens = np.random.default_rng(1).integers(CODEBOOK, size=(5, length)).astype(np.int32)
    for row, known in enumerate((0, 7, length - 1, length, 11)):
        tokens[row, known:] = MASK
    tokens[4] = np.where(np.arange(length) % 3, tokens[4], MASK)  # gaps, not only a prefix
    logits, keys = lookup(length), keys_of(5)
    out = decode(logits, tokens, keys, temperature, steps)
    filled, history = reference(logits, tokens, keys, temperature, steps)
    np.testing.assert_array_equal(out.history, history)
    np.testing.assert_array_equal(out.tokens, filled)


def test_the_papers_counts():
    length, steps = 1536, 12
    tokens = jnp.full((2, length), MASK)
    out = decode(lookup(length), tokens, keys_of(2), 4.0, steps)
    masked = (np.asarray(out.history) == MASK).sum(-1)
    left = np.concatenate([np.full((1, 2), length), masked[:-1], np.zeros((1, 2), int)])
    expected = [14, 39, 64, 89, 112, 132, 151, 167, 181, 190, 197, 200]
    np.testing.assert_array_equal(-np.diff(left, axis=0), np.stack([expected] * 2, 1))


@pytest.mark.parametrize("length", [1, 2, 24])
def test_known_codes_stay_and_no_mask_is_left(length):
    tokens = np.random.default_rng(2).integers(CODEBOOK, size=(4, length)).astype(np.int32)
    known = np.arange(length) < np.array([[0], [1], [length // 2], [length]])
    tokens = np.where(known, tokens, MASK)
    out = decode(lookup(length), tokens, keys_of(4), 8.0, 30)  # more steps than codes
    np.testing.assert_array_equal(np.asarray(out.tokens)[known], tokens[known])
    assert (np.asarray(out.tokens) < MASK).all()
    before, *rest = [tokens, *np.asarray(out.history)]
    for after in rest:  # what is fixed is never revisited
        kept = before != MASK
        np.testing.assert_array_equal(after[kept], before[kept])
        before = after


@pytest.mark.parametrize(("name", "steps"), [("cosine", 30), ("exp", 40), ("linear", 1)])
def test_steps_that_only_sample_one_token_again_are_skipped(name, steps):
    tokens = np.random.default_rng(5).integers(CODEBOOK, size=(4, 24)).astype(np.int32)
    options = dict(
        steps=steps, choice_temperature=2.0, mask_id=MASK, schedule=schedules.SCHEDULES[name]
    )
    logits, keys = lookup(24), keys_of(4)

    @functools.partial(jax.jit, static_argnames="trace")
    def run(tokens, trace):
        return sampling.decode(logits, tokens, keys, trace=trace, **options)

    # Clips, later windows, gaps, one or no token; one of each; one and no token.
    for known in ((0, 0, 0, 0), (12, 12, 12, 12), (0, 12, 23, 24), (23, 23, 24, 24), (24,) * 4):
        given = np.where(np.arange(24) < np.array(known)[:, None], tokens, MASK)
        given[1] = np.where(np.arange(24) % 3, given[1], tokens[1])
        every, fewer = run(given, True), run(given, False)
        np.testing.assert_array_equal(fewer.tokens, every.tokens)
        assert every.passes == steps and fewer.history is None
        before = np.concatenate([given[None], every.history])[:-1]
        choices = ((before == MASK).sum(-1).max(1) > 1)[:-1]  # of every step but the last
        assert fewer.passes == choices.sum() + 1
        assert steps == 1 or fewer.passes < steps


def test_a_model_runs_the_useful_steps_only():
    options = dict(guidance=0.5, steps=40, choice_temperature=1.0)
    model = tiny.phenaki()
    clip = model.sample(PROMPTS, seed=5, **options)
    every = model.sample(PROMPTS, seed=5, trace=True, **options)
    np.testing.assert_array_equal(clip.tokens, every.tokens)
    assert (clip.passes, every.passes) == (48, 80)  # 24 tokens, each step guided
    window = model.sample(PROMPTS, seed=5, video=clip.video[:, -5:], **options)
    assert window.passes == 24  # 12 new tokens


def test_a_row_does_not_depend_on_its_batch():
    tokens, keys = jnp.full((4, 24), MASK), keys_of(4)
    tokens = tokens.at[1, :6].set(1)
    together = decode(lookup(24), tokens, keys, 4.0, 6)
    for row in range(4):
        alone = decode(lookup(24), tokens[row : row + 1], keys[row : row + 1], 4.0, 6)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
    assert len(np.unique(together.tokens, axis=0)) == 4


def test_guidance_is_the_papers_formula():
    conditional, unconditional = jnp.asarray([1.0, 2.0, -3.0]), jnp.asarray([0.5, 2.5, 1.0])
    np.testing.assert_array_equal(guidance.guide(conditional, unconditional, 0.0), conditional)
    np.testing.assert_allclose(
        guidance.guide(conditional, unconditional, 6.0), [7 - 3, 14 - 15, -21 - 6]
    )


PROMPTS = ["a red circle moves left", "a blue square moves up"]


def by_hand(scale):
    """What decoding gives when the tiny model's networks are called one by one."""
    model = tiny.phenaki()
    config = model.config
    ids = jnp.asarray(factory.vocabulary(config).encode(PROMPTS))
    text = factory.embed(factory.text_encoder(config), model.params["text"], ids)
    nothing = Text(text.embeddings + 1, jnp.zeros_like(text.mask))
    network = factory.maskgit(config)
    keys = [jax.random.fold_in(jax.random.key(5), row) for row in range(2)]

    @jax.jit
    def sample(params):
        def logits(tokens, step):
            answer, without = (
                network.apply({"params": params}, tokens, t) for t in (text, nothing)
            )
            return answer + scale * (answer - without) if scale else answer

        tokens = jnp.full((2, model.spec.tokens()), network.mask_id)
        options = dict(steps=3, choice_temperature=2.0, mask_id=network.mask_id)
        return sampling.decode(logits, tokens, jnp.stack(keys), **options)

    return sample(model.params["maskgit"])


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_one_doubled_batch_guides_as_two_calls_do(scale):
    model = tiny.phenaki()
    sample = model.sample(PROMPTS, seed=5, guidance=scale, choice_temperature=2.0, trace=True)
    expected = by_hand(scale)
    np.testing.assert_array_equal(sample.tokens.reshape(2, -1), expected.tokens)
    np.testing.assert_array_equal(sample.trace.history, expected.history)


def test_guidance_of_zero_is_exactly_conditional():
    model = tiny.phenaki()
    tokens = jnp.full((2, model.spec.tokens()), 32, jnp.int32)
    ids = factory.vocabulary(model.config).encode(PROMPTS)
    chosen = options.SamplingOptions(steps=3, choice_temperature=2.0, guidance=0.0, trace=True)
    inputs = (model.params, tokens, ids, None, keys_of(2), chosen.traced())
    off, zero = (
        model._sample_tokens(*inputs, static=chosen.static()._replace(guided=guided))
        for guided in (False, True)
    )
    np.testing.assert_array_equal(off.tokens, zero.tokens)
    np.testing.assert_array_equal(off.history, zero.history)


def test_what_may_change_from_call_to_call_compiles_nothing():
    model = tiny.phenaki()
    still = np.zeros((2, 16, 16, 3), np.float32)

    def sample(prompts=PROMPTS, seed=0, guidance=2.0, choice_temperature=1.0, image=None):
        options = dict(guidance=guidance, choice_temperature=choice_temperature, trace=True)
        video = None if image is None else image[:, None]
        return model.sample(prompts, seed=seed, video=video, **options).trace.history

    first = sample()
    compiled = model._sample_tokens._cache_size()
    others = [
        sample(prompts=["then a circle", None]),
        sample(seed=2**31 + 1),
        sample(guidance=5),
        sample(guidance=np.float32(0.1)),
        sample(choice_temperature=7),
        sample(image=still),
    ]
    assert model._sample_tokens._cache_size() == compiled
    assert all(np.any(first != other) for other in others)


# --- the published decoder, written down once more


def published(logits, tokens, uniform, temperature, steps):
    """MaskGIT's parallel decoding in its own terms: probabilities, all rows at once, final before
    re-masking. `uniform` gives [b s k] and [b s] numbers in (0, 1) for a step. Yields the sampled
    codes, the codes carried on and the confidence of every step.
    """
    state = np.array(tokens)
    start = (state == MASK).sum(-1, keepdims=True)
    for step in range(steps):
        answer = np.asarray(logits(jnp.asarray(state)), np.float64)
        for_codes, for_choice = uniform(step)
        noise = -np.log(-np.log(for_codes))
        final = np.where(state == MASK, (answer + noise).argmax(-1), state)
        probability = np.exp(answer - answer.max(-1, keepdims=True))
        probability /= probability.sum(-1, keepdims=True)
        selected = np.take_along_axis(probability, final[..., None], -1)[..., 0]
        selected = np.where(state == MASK, selected, np.inf)
        ratio = (step + 1) / steps
        mask_len = np.floor(start * np.clip(np.cos(np.pi / 2 * ratio), 1e-6, 1))
        left = (state == MASK).sum(-1, keepdims=True)
        mask_len = np.maximum(1, np.minimum(left - 1, mask_len)).astype(int)
        confidence = np.log(selected) - temperature * (1 - ratio) * np.log(-np.log(for_choice))
        cut_off = np.take_along_axis(np.sort(confidence, -1), mask_len, -1)
        state = np.where(confidence < cut_off, MASK, final)
        yield final, state, confidence


def noise_of(keys, length):
    """The uniform numbers behind our Gumbel noise, for a step."""
    tiny_number = np.finfo(np.float32).tiny

    def uniform(step):
        pairs = [jax.random.split(jax.random.fold_in(key, step)) for key in keys]
        shapes = ((length, CODEBOOK), (length,))
        return tuple(
            np.stack(
                [jax.random.uniform(p[i], shape, minval=tiny_number, maxval=1.0) for p in pairs]
            ).astype(np.float64)
            for i, shape in enumerate(shapes)
        )

    return uniform


@pytest.mark.parametrize(("length", "steps", "temperature"), [(1536, 12, 4.0), (24, 48, 8.0)])
def test_decoding_is_the_published_algorithm_step_by_step(length, steps, temperature):
    tokens, keys = np.full((2, length), MASK), keys_of(2)
    tokens[1, : length // 2] = 3  # a given prefix
    logits = lookup(length)
    out = decode(logits, jnp.asarray(tokens), keys, temperature, steps)
    uniform = noise_of(keys, length)
    left, committed = (tokens == MASK).sum(-1), []
    every = published(logits, tokens, uniform, temperature, steps)
    for step, (final, carried, confidence) in enumerate(every):
        np.testing.assert_array_equal(out.sampled[step], final)
        np.testing.assert_array_equal(out.history[step], carried)
        np.testing.assert_allclose(out.scores[step], confidence, rtol=1e-4, atol=1e-4)
        committed.append(left - (carried == MASK).sum(-1))
        left = (carried == MASK).sum(-1)
    np.testing.assert_array_equal(out.tokens, final)
    if length == 1536:  # the last one is the [MASK] that is carried, not returned
        assert [row[0] for row in committed[:-1]] == [
            14, 39, 64, 89, 112, 132, 151, 167, 181, 190, 197,
        ]  # fmt: skip
        assert committed[-1][0] == 199


# --- a large codebook, drawn from in two stages


def test_codes_of_a_large_codebook_come_as_often_as_their_probability_says():
    random = np.random.default_rng(0)
    size, count = 1000, 200_000  # the last block is not full
    logits = random.normal(size=size, scale=2).astype(np.float32)
    logits[3:400:2] = -np.inf
    logits[512:640] = -np.inf  # a whole block
    for temperature in (0.7, 2.0):
        rows = jnp.broadcast_to(jnp.asarray(logits), (20, count // 20, size))
        tokens = np.asarray(draws.draw(keys_of(20), rows, temperature))
        p = np.exp(logits.astype(np.float64) / temperature)
        p /= p.sum()
        counts = np.bincount(tokens.ravel(), minlength=size)
        assert counts[p == 0].sum() == 0
        often = p * count >= 5  # chi-squared: the rest as one
        seen, due = (np.append(x[often], x[~often].sum()) for x in (counts, p * count))
        statistic, freedom = ((seen - due) ** 2 / due).sum(), often.sum()
        assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_a_large_codebook_without_heat_gives_the_likeliest():
    logits = jax.random.normal(jax.random.key(1), (3, 50, 8192))
    likeliest = logits.argmax(-1)
    np.testing.assert_array_equal(draws.draw(keys_of(3), logits, 0.0), likeliest)
    only = jnp.where(jnp.arange(8192) == likeliest[..., None], logits, -jnp.inf)
    np.testing.assert_array_equal(draws.draw(keys_of(3), only, 5.0), likeliest)


# --- what may be chosen


def test_top_k_and_top_p_keep_exactly_the_likeliest():
    random = np.random.default_rng(3)
    logits = random.normal(size=(4, 5, 11), scale=2).astype(np.float32)
    restrict = jax.jit(draws.restrict)
    for top_k, top_p in ((3, 1.0), (0, 0.7), (4, 0.6), (1, 1.0), (0, 0.0), (11, 1.0), (0, 1.0)):
        kept = np.isfinite(restrict(jnp.asarray(logits), top_k, top_p))
        for row, keep in zip(logits.reshape(-1, 11), kept.reshape(-1, 11), strict=True):
            order = np.argsort(-row)
            p = np.exp(row[order].astype(np.float64))
            p /= p.sum()
            fewest = int(np.searchsorted(np.cumsum(p), top_p) + 1)  # reach top_p together
            count = max(min(top_k or 11, fewest, 11), 1)
            assert set(np.flatnonzero(keep)) == set(order[:count]), (top_k, top_p)
    same = restrict(jnp.asarray(logits), 0, 1.0)
    np.testing.assert_array_equal(same, logits)
    np.testing.assert_array_equal(
        restrict(jnp.zeros((1, 1, 4)), 2, 1.0), jnp.zeros((1, 1, 4))
    )  # equals stay together


@pytest.mark.parametrize(
    "given", [dict(narrow=lambda x: draws.restrict(x, 1, 1.0)), dict(temperature=0.0)]
)
def test_one_code_or_no_heat_is_greedy(given):
    logits, tokens = lookup(20), jnp.full((2, 20), MASK)
    out = sampling.decode(
        logits, tokens, keys_of(2), steps=4, choice_temperature=4.0, mask_id=MASK, **given
    )
    before = tokens
    for sampled, carried in zip(out.sampled, out.history, strict=True):
        likeliest = np.asarray(logits(before)).argmax(-1)
        np.testing.assert_array_equal(sampled, np.where(before == MASK, likeliest, before))
        before = np.asarray(carried)


def test_temperature_heats_the_codes_and_not_the_confidence():
    logits, tokens, keys = lookup(400), jnp.full((4, 400), MASK), keys_of(4)

    def entropy(temperature):
        out = sampling.decode(
            logits, tokens, keys, steps=1, choice_temperature=0.0, mask_id=MASK,
            temperature=temperature,
        )  # fmt: skip
        answer = np.asarray(jax.nn.log_softmax(logits(tokens)))
        own = np.take_along_axis(answer, np.asarray(out.tokens)[..., None], -1)[..., 0]
        np.testing.assert_allclose(out.scores[0], own, atol=1e-5)  # log p at temperature 1
        return -own.mean()

    cold, plain, hot = (entropy(t) for t in (0.3, 1.0, 30.0))
    probability = np.asarray(jax.nn.softmax(logits(tokens)))[0]
    assert plain == pytest.approx(-(probability * np.log(probability)).sum(-1).mean(), abs=0.1)
    assert cold < plain - 0.2 < hot - 0.4


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_the_sampler_follows_its_schedule(name):
    steps, length = 7, 50
    out = sampling.decode(
        lookup(length), jnp.full((1, length), MASK), keys_of(1), steps=steps,
        choice_temperature=1.0, mask_id=MASK, schedule=schedules.SCHEDULES[name],
    )  # fmt: skip
    left, expected = length, []
    for step in range(steps):
        gamma = np.clip(schedules.SCHEDULES[name](np.array((step + 1) / steps), length), 1e-6, 1)
        left = max(1, min(left - 1, math.floor(length * gamma + 1e-9)))
        expected.append(left)
    np.testing.assert_array_equal((np.asarray(out.history) == MASK).sum(-1)[:, 0], expected)
    assert (np.asarray(out.tokens) < MASK).all()


# --- with a critic


def test_a_critic_chooses_among_all_codes_that_were_not_given():
    length, steps, noise = 20, 5, 2.0
    random = np.random.default_rng(4)
    taste = jnp.asarray(random.normal(size=(length, CODEBOOK)), jnp.float32)

    def fake(tokens):  # a fixed opinion of every token at its place
        return jnp.take_along_axis(taste[None], tokens[..., None], -1)[..., 0]

    tokens = np.full((3, length), MASK)
    tokens[1, :7] = 2
    tokens[2, :] = 1
    tokens[2, 4] = MASK
    keys, logits = keys_of(3), lookup(length)
    out = sampling.decode(
        logits, jnp.asarray(tokens), keys, steps=steps, choice_temperature=99.0, mask_id=MASK,
        temperature=0.9, score_fn=fake, score_noise=noise,
    )  # fmt: skip
    state, again = tokens.copy(), np.zeros(tokens.shape, bool)
    fixed = np.zeros(tokens.shape, bool)
    for step in range(steps):
        answer = np.asarray(logits(jnp.asarray(state)))
        left = (steps - 1 - step) / steps
        for row, key in enumerate(keys):
            key_code, key_choice = jax.random.split(jax.random.fold_in(key, step))
            gumbel = np.asarray(jax.random.gumbel(key_code, answer[row].shape))
            drawn = (answer[row] + 0.9 * left * gumbel).argmax(-1)
            state[row] = np.where(state[row] == MASK, drawn, state[row])
        np.testing.assert_array_equal(out.sampled[step], state)
        scores = np.asarray(fake(jnp.asarray(state)))
        for row, key in enumerate(keys):
            _, key_choice = jax.random.split(jax.random.fold_in(key, step))
            u = np.asarray(jax.random.uniform(key_choice, (length,)))
            open_ = np.flatnonzero(tokens[row] == MASK)
            count = math.ceil(len(open_) * math.cos(math.pi * (step + 1) / (2 * steps)) - 1e-9)
            count = 0 if step == steps - 1 else max(count, 1)
            score = scores[row] + noise * (u - 0.5) * left
            worst = open_[np.argsort(-score[open_])[:count]]
            again[row] |= fixed[row] & np.isin(np.arange(length), worst)
            state[row, worst] = MASK
            fixed[row] = state[row] != MASK
        np.testing.assert_array_equal(out.history[step], state)
    np.testing.assert_array_equal(out.tokens, out.history[-1])
    assert again.any()  # what was accepted is taken back, unlike by confidence
    np.testing.assert_array_equal(np.asarray(out.tokens)[tokens != MASK], tokens[tokens != MASK])


# --- through the model


def codes_of(prompts=PROMPTS, seed=5, **options):
    sample = tiny.phenaki().sample(prompts, seed=seed, **options)
    return sample.tokens.reshape(len(prompts), -1)


def test_a_negative_prompt_takes_the_place_of_no_text():
    model = tiny.phenaki()
    config, negative, scale = model.config, "a white triangle goes down", 1.5
    vocabulary, encoder = factory.vocabulary(config), factory.text_encoder(config)
    texts = [
        factory.embed(encoder, model.params["text"], jnp.asarray(vocabulary.encode(prompts)))
        for prompts in (PROMPTS, [negative] * 2)
    ]
    keys = jnp.stack([jax.random.fold_in(jax.random.key(5), row) for row in range(2)])

    def logits(tokens, step):
        apply = {"params": model.params["maskgit"]}
        answer, without = (model.network.apply(apply, tokens, text) for text in texts)
        return answer + scale * (answer - without)

    tokens = jnp.full((2, model.spec.tokens()), MASK_ID)
    options = dict(steps=3, choice_temperature=1.0, mask_id=MASK_ID)
    expected = jax.jit(lambda: sampling.decode(logits, tokens, keys, **options).tokens)()
    given = codes_of(guidance=scale, negative=negative, choice_temperature=1.0)
    np.testing.assert_array_equal(given, expected)
    assert np.any(given != codes_of(guidance=scale, choice_temperature=1.0))
    # A prompt is not steered away from itself: l_c = l_u.
    itself = codes_of(guidance=scale, negative=PROMPTS, choice_temperature=1.0)
    np.testing.assert_array_equal(itself, codes_of(guidance=0.0, choice_temperature=1.0))


MASK_ID = 32  # of the tiny model


def test_a_linear_ramp_reaches_the_scale_in_the_last_step():
    model, scale = tiny.phenaki(), 3.0
    network = {"params": model.params["maskgit"]}
    ids = jnp.asarray(factory.vocabulary(model.config).encode(PROMPTS))
    text = factory.embed(factory.text_encoder(model.config), model.params["text"], ids)
    nothing = jax.tree.map(jnp.zeros_like, text)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(5), row) for row in range(2)])

    def logits(tokens, step):
        answer, without = (model.network.apply(network, tokens, t) for t in (text, nothing))
        return answer + scale * jnp.asarray([1 / 3, 2 / 3, 1.0])[step] * (answer - without)

    tokens = jnp.full((2, model.spec.tokens()), MASK_ID)
    options = dict(steps=3, choice_temperature=1.0, mask_id=MASK_ID)
    expected = jax.jit(lambda: sampling.decode(logits, tokens, keys, **options).tokens)()
    given = codes_of(guidance=scale, guidance_schedule="linear", choice_temperature=1.0)
    np.testing.assert_array_equal(given, expected)
    assert np.any(given != codes_of(guidance=scale, choice_temperature=1.0))


def test_a_trace_is_kept_on_request_only():
    model = tiny.phenaki()
    plain = codes_of()
    assert model.sample(PROMPTS, seed=5).trace is None
    trace = model.sample(PROMPTS, seed=5, trace=True).trace
    np.testing.assert_array_equal(trace.tokens, plain)
    assert trace.sampled.shape == trace.scores.shape == trace.history.shape
    np.testing.assert_array_equal(trace.sampled[-1], plain)
    before = np.concatenate([np.full((1, *plain.shape), MASK_ID), trace.history[:-1]])
    np.testing.assert_array_equal(np.isfinite(trace.scores), before == MASK_ID)


def test_heat_and_top_p_compile_nothing_either():
    model = tiny.phenaki()
    options = dict(guidance=0.5, top_p=0.99)
    first = codes_of(**options)
    compiled = model._sample_tokens._cache_size()
    others = [
        codes_of(**options | dict(top_p=0.5)),
        codes_of(**options | dict(top_k=1)),
        codes_of(**options | dict(temperature=0.2)),
        codes_of(**options | dict(seed=7, choice_temperature=30)),
    ]
    assert model._sample_tokens._cache_size() == compiled
    assert all(np.any(first != other) for other in others)
    negative = codes_of(**options, negative="a red circle")
    compiled = model._sample_tokens._cache_size()
    assert np.any(negative != codes_of(**options, negative="a blue square moves up"))
    assert model._sample_tokens._cache_size() == compiled


def test_codes_depend_neither_on_the_batch_nor_on_the_devices():
    model = tiny.phenaki()
    prompts = [*PROMPTS, None, "a circle"]
    together = codes_of(prompts, guidance=1.0)
    for count in (1, 4):
        np.testing.assert_array_equal(codes_of(prompts[:count], guidance=1.0), together[:count])
    eight = Phenaki(model.config, model.params)
    eight.shard(sharding.make_mesh(data=2, fsdp=2, tensor=2))
    assert len(eight.params["maskgit"]["embedding"].sharding.device_set) == 8
    sample = eight.sample(prompts, seed=5, guidance=1.0)
    np.testing.assert_array_equal(sample.tokens.reshape(together.shape), together)


FEW_PASSES = dict(
    steps=5, schedule="late", order="middle", temperature=(1.0, 0.5, 0.0), min_p=0.05,
    choice_temperature=1.0, guidance=0.0,
    continued=dict(steps=3, schedule="linear", order="frames", temperature=0.0, guidance=1.0),
)  # fmt: skip


def test_a_critic_has_no_few_passes():
    few, critic = options.Defaults(FEW_PASSES), options.Critic(None, None)
    for continues in (False, True):
        chosen = options.resolve(few, continues=continues, critic=critic)
        assert (chosen.schedule, chosen.order, chosen.temperature) == ("cosine", "confidence", 1.0)
        assert (chosen.steps, chosen.min_p, chosen.guidance) == (12, 0.0, 0.0)
    given = dict(steps=4, temperature=0.5, order="halton", schedule="linear", min_p=0.1)
    chosen = options.resolve(few, critic=critic, **given)
    assert {name: getattr(chosen, name) for name in given} == given
    assert options.resolve(few).schedule == "late"
    paper = dict(steps=24, choice_temperature=4.0, guidance=6.0, continued=dict(steps=6))
    assert options.resolve(options.Defaults(paper), critic=critic).steps == 24
    assert options.resolve(options.Defaults(paper), continues=True, critic=critic).steps == 6
    paper["continued"] = FEW_PASSES["continued"]
    assert options.resolve(options.Defaults(paper), continues=True, critic=critic).steps == 24
    with pytest.raises(UserError, match="schedule=late keeps no token with a critic"):
        options.resolve(few, critic=critic, schedule="late")


def test_seeds_differ_with_a_critic_of_a_few_pass_model():
    chosen = options.resolve(options.Defaults(FEW_PASSES), critic=options.Critic(None, None))
    clips = [
        sampling.decode(
            lookup(6), jnp.full((1, 6), MASK), jax.random.split(jax.random.key(seed), 1),
            steps=chosen.steps, choice_temperature=1.0, mask_id=MASK, trace=False,
            schedule=schedules.SAMPLER_SCHEDULES[chosen.schedule],
            temperature=chosen.traced()["temperature"],
            score_fn=lambda codes: (codes % 3).astype(jnp.float32),
        ).tokens.tolist()
        for seed in range(4)
    ]  # fmt: skip
    assert any(clip != clips[0] for clip in clips)


# --- options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(guidence=1.0), r"option 'guidence' must be one of .*; did you mean guidance\?"),
        (dict(zebra=1.0), r"sampling option 'zebra' must be one of preset, steps, "),
        (dict(preset="video"), r"preset='video' must be one of .*; did you mean videos\?"),
        (dict(schedule="cosin"), r"schedule='cosin' must be one of .*; did you mean cosine\?"),
        (dict(guidance_schedule="log"), r"guidance_schedule='log' must be one of constant, l"),
        (dict(steps=0), r"steps=0 must be at least 1\."),
        (dict(top_p=1.5), r"top_p=1\.5 must be at most 1\."),
        (dict(temperature=-1), r"temperature=-1 must be at least 0\."),
    ],
)
def test_a_wrong_option_names_the_right_one(given, message):
    with pytest.raises(UserError, match=message):
        codes_of(**given)


def test_presets_are_the_papers_and_what_is_given_goes_before_them():
    config = tiny.whole_config()
    config.sample.top_k = 5

    def defaults():
        return Phenaki(config, {}).defaults

    def three(**given):
        chosen = options.resolve(defaults(), **given)
        return chosen.guidance, chosen.steps, chosen.choice_temperature, chosen.top_k

    assert three(preset="nuwa") == (0.1, 12, 4.0, 0)  # B.3.3
    assert three(preset="ablation") == (6.0, 24, 4.0, 0)  # B.3.4
    assert three(preset="videos", steps=None) == (12.0, 48, 8.0, 0)  # B.3.5
    assert three(preset="videos", steps=6, guidance=0.0, top_k=5) == (0.0, 6, 8.0, 5)
    own = config.sample
    assert three() == (own.guidance, own.steps, own.choice_temperature, 5)
    del config.sample["top_p"], config["presets"]  # as stored before they were
    assert options.resolve(defaults()).top_p == 1.0
    with pytest.raises(UserError, match=r"preset='nuwa' must be one of none\."):
        three(preset="nuwa")
