"""Sampling options that are not the paper's: bounded guidance, fixed orders, few passes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki.errors import UserError
from phenaki.pipeline import Phenaki
from phenaki.sampling import decode, draws, guidance, options, orders, schedules
from phenaki.sampling.calibrate import calibrated_order
from phenaki.sampling.options import Defaults, SamplingOptions
from phenaki.stories import notes

GRID = (6, 2, 2)
MASK = 7
PROMPTS = ["a red circle moves left", "a blue square moves up"]


def logits_of(random, rows=1, length=24, codes=7):
    return jnp.asarray(random.normal(size=(rows, length, codes), scale=2), jnp.float32)


def test_the_facts_of_a_call_name_the_options_of_windows_that_continue():
    own = dict(steps=5, choice_temperature=1.0, guidance=0.0, order="middle", min_p=0.1)
    defaults = Defaults({**own, "continued": {"steps": 4, "order": "confidence"}})
    facts = options.facts(defaults, min_p=0.2)
    assert (facts["steps"], facts["order"], facts["min_p"]) == (5, "middle", 0.2)
    assert facts["continued"] == {"steps": 4, "order": "confidence"}
    assert options.facts(defaults, steps=3)["continued"] == {"order": "confidence"}
    assert "continued" not in options.facts(Defaults(own))


# --- guidance


def test_a_bounded_push_is_the_formula_and_no_bound_is_plain_guidance():
    random = np.random.default_rng(0)
    conditional, unconditional = logits_of(random), logits_of(random)
    log_c, log_u = (np.asarray(jax.nn.log_softmax(x)) for x in (conditional, unconditional))
    plain = jax.nn.softmax(guidance.guide(conditional, unconditional, 6.0))
    free = guidance.guide_bounded(conditional, unconditional, 6.0, math.inf, 0.0)
    np.testing.assert_allclose(jax.nn.softmax(free), plain, atol=1e-5)
    bounded = guidance.guide_bounded(conditional, unconditional, 6.0, 2.0, 0.0)
    push = np.clip(6 * (log_c - log_u), -2, 2)
    np.testing.assert_allclose(bounded, log_c + push, atol=1e-5)
    assert np.abs(6 * (log_c - log_u)).max() > 2
    few = np.asarray(guidance.guide_bounded(conditional, unconditional, 6.0, math.inf, 0.1))
    kept = np.exp(log_c) >= 0.1 * np.exp(log_c).max(-1, keepdims=True)
    np.testing.assert_array_equal(np.isfinite(few), kept)
    assert kept.any() and not kept.all()


def test_ramps_rise_fall_or_stay():
    done = np.array([0.25, 0.5, 0.75, 1.0])
    found = {name: ramp(done, 4) * np.ones(4) for name, ramp in guidance.RAMPS.items()}
    np.testing.assert_allclose(found["constant"], 1)
    np.testing.assert_allclose(found["linear"], done)
    np.testing.assert_allclose(found["falling"], done[::-1])


def test_guidance_outside_of_its_interval_is_none_and_costs_nothing():
    model = tiny.phenaki()
    call = dict(seed=5, steps=8, choice_temperature=1.0)
    plain = model.sample(PROMPTS, guidance=0.0, **call)
    all_steps = model.sample(PROMPTS, guidance=9.0, **call)
    # Half of the steps are not guided: at the ones that are, λ has no effect.
    idle = model.sample(PROMPTS, guidance=1e-9, guidance_interval=(0.0, 0.5), **call)
    first = model.sample(PROMPTS, guidance=9.0, guidance_interval=(0.0, 0.25), **call)
    np.testing.assert_array_equal(idle.tokens, plain.tokens)
    assert (plain.passes, idle.passes, first.passes, all_steps.passes) == (8, 12, 10, 16)
    assert np.any(first.tokens != plain.tokens) and np.any(first.tokens != all_steps.tokens)


@pytest.mark.parametrize(("interval", "steps", "nearest"), [
    ((0.0, 0.1), 8, "(0.0, 0.125)"), ((0.4, 0.45), 3, "(0.4, 0.667)"), ((0.99, 1), 4, None),
])  # fmt: skip
def test_an_interval_without_a_step_is_refused(interval, steps, nearest):
    own = {"choice_temperature": 1.0, "guidance": 1.0}
    given = dict(guidance_interval=interval, steps=steps)
    if nearest is None:
        assert options.resolve(Defaults(own), **given).guided_steps() == 1
        return
    with pytest.raises(UserError, match=f"holds none of the {steps} steps; nearest is ") as caught:
        options.resolve(Defaults(own), **given)
    assert str(caught.value).endswith(f"nearest is {nearest}.")
    nearest = tuple(map(float, nearest.strip("()").split(",")))
    options.resolve(Defaults(own), **given | {"guidance_interval": nearest})


def test_an_interval_of_the_model_that_a_call_leaves_without_a_step_is_told():
    own = {"choice_temperature": 1.0, "guidance": 1.0, "guidance_interval": [0.0, 0.34]}
    chosen = options.resolve(Defaults(own), steps=2, guidance_limit=2.0)
    reasons = chosen.without_effect(["guidance_limit"])
    assert reasons == {"guidance_limit": "guidance_interval=[0.0, 0.34] holds no step of 2"}
    sentence = "steps=2 guides no step: guidance_interval=0,0.34 holds none."
    assert notes.of_options([chosen], ["steps"], True) == [sentence]


def test_bounds_change_samples_and_compile_nothing_new():
    model = tiny.phenaki()

    def tokens(**given):
        call = dict(seed=5, steps=8, choice_temperature=1.0, guidance=12.0, guidance_limit=2.0)
        return model.sample(PROMPTS, **call | given).tokens

    first = tokens()
    compiled = model._sample_tokens._cache_size()
    assert np.any(first != tokens(guidance_limit=0.01))
    assert np.any(first != tokens(guidance_min_p=0.9))
    assert model._sample_tokens._cache_size() == compiled
    # Hardly any push is hardly any guidance.
    np.testing.assert_array_equal(tokens(guidance_limit=1e-6), tokens(guidance=0.0))


# --- orders


@pytest.mark.parametrize("grid", [GRID, (1, 16, 16), (6, 3, 4)])
@pytest.mark.parametrize("name", orders.FIXED)
def test_an_order_has_every_position_once(name, grid):
    ranks = orders.ranks(name, grid)
    np.testing.assert_array_equal(np.sort(ranks), np.arange(math.prod(grid)))


def test_orders_are_what_their_names_say():
    frame = orders.ranks("frames", GRID).reshape(6, 4)
    assert (frame // 4 == np.arange(6)[:, None]).all()
    middle = orders.ranks("middle", GRID).reshape(6, 4).min(1)
    np.testing.assert_array_equal(np.argsort(middle), [2, 3, 1, 4, 0, 5])
    first = np.argsort(orders.ranks("halton", (6, 16, 16)))[:8]
    cells = np.stack(np.unravel_index(first, (6, 16, 16)), -1) // (3, 8, 8)
    assert len(np.unique(cells, axis=0)) >= 6  # of eight octants
    own = orders.ranks("calibrated", GRID, (11, 13))
    assert own[11] == 0 and own[13] == 1 and sorted(own) == list(range(24))
    assert orders.ranks("confidence", GRID) is None
    with pytest.raises(UserError, match=r"has none in config\.sample\.calibrated; nearest is"):
        orders.ranks("calibrated", GRID)


def test_tokens_are_kept_in_order_whatever_was_sampled():
    random = np.random.default_rng(1)
    fixed, length = logits_of(random, 3), 24
    ranks = orders.ranks("middle", GRID)
    tokens = jnp.full((3, length), MASK).at[1, :12].set(3)
    run = jax.jit(
        lambda tokens, keys: decode.decode(
            lambda tokens, step: fixed, tokens, keys, steps=5, choice_temperature=1.0,
            mask_id=MASK, schedule=schedules.SAMPLER_SCHEDULES["late"], ranks=ranks,
        )
    )  # fmt: skip
    out = run(tokens, jax.random.split(jax.random.key(0), 3))
    for row in range(3):
        unknown = np.flatnonzero(np.asarray(tokens[row]) == MASK)
        order = unknown[np.argsort(ranks[unknown])]
        for step in range(4):  # one token a step, the rest in the last
            left = np.flatnonzero(np.asarray(out.history[step, row]) == MASK)
            assert set(left) == set(order[step + 1 :])
    assert (np.asarray(out.tokens) < MASK).all()


def test_a_temperature_may_be_a_curve_over_the_steps():
    def curve(temperature, steps):
        return SamplingOptions(steps, 1.0, 0.0, temperature=temperature).traced()["temperature"]

    np.testing.assert_allclose(curve((1, 1, 0.5, 0, 0), 5), [1, 1, 0.5, 0, 0])
    np.testing.assert_allclose(curve((1, 0), 3), [1, 0.5, 0])
    np.testing.assert_allclose(curve(0.7, 4), [0.7] * 4)
    fixed = logits_of(np.random.default_rng(2), 40)
    out = decode.decode(
        lambda tokens, step: fixed, jnp.full((40, 24), MASK),
        jax.random.split(jax.random.key(1), 40), steps=2, choice_temperature=0.0, mask_id=MASK,
        temperature=jnp.array([1.0, 0.0]),
    )  # fmt: skip
    likeliest = fixed.argmax(-1)
    assert np.any(out.sampled[0] != likeliest)  # hot
    still = np.asarray(out.history[0]) == MASK
    np.testing.assert_array_equal(np.asarray(out.tokens)[still], likeliest[still])  # cold


def test_min_p_keeps_what_is_likely_enough():
    logits = logits_of(np.random.default_rng(3))
    p = np.asarray(jax.nn.softmax(logits))
    kept = np.isfinite(draws.plausible(logits, 0.2))
    np.testing.assert_array_equal(kept, p >= 0.2 * p.max(-1, keepdims=True))
    np.testing.assert_array_equal(draws.plausible(logits, 0.0), logits)


def test_calibration_finds_the_positions_that_decide_the_others():
    samples = np.random.default_rng(4).integers(7, size=(5, 6)).astype(np.int32)
    tells = np.array([[0, 0.1, 0, 0.5, 0, 0.3]])  # nats less for every other position

    def entropies(tokens):
        known = tokens != MASK
        return 1 - (known * tells).sum(1, keepdims=True) * np.ones(6)

    assert calibrated_order(entropies, samples, MASK, 3) == [3, 5, 1]


# --- options where a part of the clip is given


def test_given_frames_take_the_options_of_later_windows():
    defaults = Defaults(
        dict(steps=5, choice_temperature=1.0, guidance=0.0, order="middle",
             continued=dict(steps=2, order="frames")),
        {"paper": dict(steps=24, order="confidence", continued={})},
    )  # fmt: skip

    def chosen(**given):
        found = options.resolve(defaults, **given)
        return found.steps, found.order

    assert chosen() == (5, "middle")
    assert chosen(continues=True) == (2, "frames")
    assert chosen(continues=True, steps=9) == (9, "frames")
    assert chosen(continues=True, preset="paper") == (24, "confidence")

    model = tiny.phenaki()
    ours = Phenaki(model.config, model.params)
    ours.settings = dataclasses.replace(ours.settings, defaults=defaults)
    clip = ours.sample(PROMPTS, seed=0)
    assert clip.passes == 5
    assert ours.sample(PROMPTS, seed=0, video=clip.video[:, -5:]).passes == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(order="midle"), r"order='midle' must be one of .*; did you mean middle\?"),
        (
            dict(guidance_interval=(0.5, 0.5)),
            r"guidance_interval=\(0\.5, 0\.5\) must be two",
        ),
        (dict(guidance_interval=(0, 1.5)), r"guidance_interval=\(0, 1\.5\) must be two rising"),
        (dict(temperature=(1, -1)), r"temperature\[1\]=-1 must be at least 0\."),
        (dict(guidance_limit=-1), r"guidance_limit=-1 must be at least 0\."),
        (dict(min_p=2), r"min_p=2 must be at most 1\."),
    ],
)
def test_a_wrong_option_is_named(given, message):
    with pytest.raises(UserError, match=message):
        SamplingOptions(5, 1.0, 0.0, **given)
