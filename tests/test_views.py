"""view=begun: passes over the latent frames that were begun (docs/sampling.md#begun)."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import yaml

from configs import maskgit
from phenaki import sharding
from phenaki.errors import UserError
from phenaki.pipeline import Phenaki
from phenaki.sampling import decode, options, orders, sampler, views
from phenaki.sampling.options import Defaults
from phenaki.sampling.schedules import SAMPLER_SCHEDULES

GRID, PER_FRAME, TOKENS = (6, 2, 2), 4, 24
ROOT = Path(__file__).parents[1]
PROMPTS = ["a red circle moves left", "a blue square moves up"]
# Four tokens one by one, then the others; in the order of the middle.
FEW = dict(
    steps=5, schedule="late", order="middle", view="begun", temperature=(1, 1, 0, 0, 0), guidance=0
)  # fmt: skip


def masked(model, known):
    """Tokens of the model's clips, masked where not `known` [b t]."""
    random = np.random.default_rng(0)
    tokens = random.integers(model.codebook, size=(len(known), TOKENS))
    hidden = ~np.repeat(np.asarray(known, bool), PER_FRAME, axis=1)
    return np.where(hidden, model.network.mask_id, tokens)


def filled(model, tokens, first_row=0, **given):
    """The `tokens` filled by the options `given`, as `Phenaki.sample` does."""
    chosen = options.resolve(model.defaults, **(FEW | given))
    keys = sampler.row_keys(0, len(tokens), first_row)
    prompts = (PROMPTS * 2)[first_row : first_row + len(tokens)]
    return np.asarray(model._fill_tokens(tokens, prompts, keys, chosen, None).tokens)


def views_of(known, steps=5, schedule="late", order="middle"):
    counts, _ = decode.plan(steps, TOKENS, SAMPLER_SCHEDULES[schedule])
    known = np.repeat(np.asarray(known, bool), PER_FRAME, axis=1)
    return views.of(known, counts, orders.ranks(order, GRID), PER_FRAME)


# --- which latent frames


def test_a_step_sees_what_is_known_and_what_it_decodes():
    nothing, prefix = [[False] * 6], [[True] * 3 + [False] * 3]
    assert views_of(nothing).frames == ((2,),) * 4 + (tuple(range(6)),)
    assert views_of(nothing, steps=7).frames == ((2,),) * 4 + ((2, 3),) * 2 + (tuple(range(6)),)
    continued = views_of(prefix * 2, steps=3, schedule="linear", order="frames")
    assert continued.frames == ((0, 1, 2, 3), (0, 1, 2, 3, 4), tuple(range(6)))
    assert not continued.hide
    np.testing.assert_allclose(continued.fractions(), [4 / 6, 5 / 6, 1])


@pytest.mark.parametrize(
    "known", [[[False] * 6, [True] + [False] * 5], [[False, True] + [False] * 4]]
)
def test_other_patterns_pass_over_the_clip_in_one_program(known):
    assert views_of(known) == views.whole(5, 6)


def test_a_clip_of_one_token_has_views():
    counts, _ = decode.plan(3, 1)
    found = views.of(np.zeros((1, 1), bool), counts, np.arange(1), 1)
    assert found.frames == ((0,), (0,), (0,))


@pytest.mark.parametrize(
    ("schedule", "order"), [("cosine", "middle"), ("late", "frames"), ("linear", "halton")]
)
def test_every_token_is_seen_by_the_step_that_decodes_it(schedule, order):
    model = tiny.phenaki()
    for given in (0, 2):
        tokens = masked(model, [[True] * given + [False] * (6 - given)] * 2)
        own = FEW | dict(schedule=schedule, order=order, trace=True)
        chosen = options.resolve(model.defaults, **own)
        static = sampler.with_views(chosen.static(), model.network, tokens)
        keys = sampler.row_keys(0, 2)
        history = model._fill_tokens(tokens, PROMPTS, keys, chosen, None).history
        known = np.asarray(history) != model.network.mask_id
        for step in range(4):  # what is kept after a step lies in its view
            frames = known[step].reshape(2, 6, 4).any(-1)
            assert set(np.flatnonzero(frames.any(0))) == set(static.views.frames[step])
        assert static.views.frames[-1] == tuple(range(6))


# --- what they see


def test_a_pass_over_a_part_is_one_over_the_clip_that_hides_the_rest():
    model = tiny.phenaki()
    places = views.positions((1, 4), PER_FRAME)
    assert places.tolist() == [4, 5, 6, 7, 16, 17, 18, 19]
    tokens = jnp.asarray(masked(model, [[False, True] + [False] * 4] * 2))
    text = model.embed(PROMPTS)
    apply = functools.partial(model.network.apply, {"params": model.params["maskgit"]})
    part = apply(tokens[:, places], text, places=places)
    valid = np.isin(np.arange(TOKENS), places)
    whole = apply(tokens, text, valid=jnp.asarray(np.tile(valid, (2, 1))))
    np.testing.assert_allclose(part, whole[:, places], atol=1e-5)
    assert abs(np.asarray(apply(tokens, text)[:, places] - part)).max() > 1e-3
    assert abs(np.asarray(apply(tokens[:, places], text) - part)).max() > 1e-3  # other places


def test_the_first_token_is_drawn_from_what_its_latent_frame_alone_says():
    model = tiny.phenaki()
    count = 4000
    tokens = np.full((count, TOKENS), model.network.mask_id)
    chosen = options.resolve(model.defaults, **FEW, trace=True)
    prompts, keys = PROMPTS[:1] * count, sampler.row_keys(1, count)
    place = int(np.argsort(orders.ranks("middle", GRID))[0])
    history = model._fill_tokens(tokens, prompts, keys, chosen, None).history
    found = np.bincount(np.asarray(history)[0, :, place], minlength=model.codebook) / count
    places = views.positions((2,), PER_FRAME)
    frame, text = jnp.asarray(tokens[:1, places]), model.embed(PROMPTS[:1])
    given = {"params": model.params["maskgit"]}
    logits = model.network.apply(given, frame, text, places=places)
    expected = np.asarray(jax.nn.softmax(logits[0, place - places[0]]))
    spread = np.sqrt(expected * (1 - expected) / count)
    assert (abs(found - expected) < 4.5 * spread + 1e-9).all()


def test_where_all_is_begun_it_is_the_plain_sampler():
    model = tiny.phenaki()
    tokens = masked(model, [[True] * 5 + [False]] * 2)
    call = dict(order="frames", schedule="linear", temperature=0.0, steps=3)
    plain, begun = (filled(model, tokens, view=view, **call) for view in ("clip", "begun"))
    np.testing.assert_array_equal(plain, begun)
    others = masked(model, [[True] * 2 + [False] * 4] * 2)
    plain, begun = (filled(model, others, view=view, **call) for view in ("clip", "begun"))
    assert (plain != begun).any()


# --- rows, steps, devices


def test_a_row_does_not_depend_on_what_others_know():
    model = tiny.phenaki()
    known = [[False] * 6, [True, True] + [False] * 4, [False, True, False, True, False, False]]
    tokens = masked(model, known)
    together = filled(model, tokens)
    for row in range(3):
        alone = filled(model, tokens[row : row + 1], first_row=row)
        np.testing.assert_array_equal(together[row], alone[0])


def test_programs_that_do_not_know_what_is_given_draw_the_same():
    model = tiny.phenaki()
    chosen = options.resolve(model.defaults, **FEW)
    ids, keys = model.vocabulary.encode(PROMPTS), sampler.row_keys(0, 2)
    for given in (0, 2):
        tokens = masked(model, [[True] * given + [False] * (6 - given)] * 2)
        inputs = model.params, jnp.asarray(tokens), ids, None, keys, chosen.traced()
        alone = model._sample_tokens(*inputs, static=chosen.static())
        assert float(alone.passes) == 5
        np.testing.assert_array_equal(alone.tokens, filled(model, tokens))


def test_step_by_step_it_is_the_same_clip_and_every_step_shows_codes():
    model = tiny.phenaki()
    shown = []
    watched = model.sample(PROMPTS, seed=0, progress=shown.append, **FEW)
    alone = model.sample(PROMPTS, seed=0, **FEW)
    np.testing.assert_array_equal(watched.tokens, alone.tokens)
    assert watched.passes == alone.passes
    assert [step.number for step in shown] == [1, 2, 3, 4, 5]
    first = shown[0].sampled
    assert first.max() < model.codebook
    np.testing.assert_array_equal(first, np.repeat(first[:, 2:3], 6, axis=1))
    assert (shown[0].tokens == model.network.mask_id).sum() == 2 * 23


@pytest.mark.parametrize(
    "mesh", [dict(data=2, fsdp=4, tensor=1), dict(data=2, fsdp=1, sequence=4, tensor=1)]
)
def test_a_mesh_draws_what_one_device_does(mesh):
    alone = tiny.phenaki()
    spread = Phenaki(alone.config, alone.params).shard(sharding.make_mesh(**mesh))
    one, eight = (model.sample(4 * PROMPTS, seed=3, **FEW) for model in (alone, spread))
    np.testing.assert_array_equal(one.tokens, eight.tokens)


# --- costs and options


def test_passes_count_the_part_that_is_seen_and_guided_ones_twice():
    model = tiny.phenaki()
    few = model.sample(PROMPTS, seed=0, **FEW)
    assert few.passes == 1.667
    guided = model.sample(PROMPTS, seed=0, **FEW | dict(guidance=1.0))
    assert guided.passes == 3.333
    first = model.sample(PROMPTS, seed=0, **FEW | dict(guidance=1.0, guidance_interval=(0, 0.2)))
    assert first.passes == 1.833
    assert (first.tokens != few.tokens).any()
    image = model.sample(PROMPTS, seed=0, known=np.zeros((1, 2, 2), bool), **FEW)
    assert image.passes == 4  # four tokens, all of them seen


def test_it_is_of_fixed_orders_and_has_no_effect_with_others():
    model = tiny.phenaki()
    own = Defaults(dict(FEW, choice_temperature=1.0), {"plain": {"order": "confidence"}})
    assert options.resolve(own).static().view == "begun"
    for chosen in (
        options.resolve(own, order="confidence"),
        options.resolve(own, preset="plain"),
        options.resolve(own, critic=options.Critic(None, {}), order="middle", view="begun"),
        options.resolve(own, student=options.Student(None, {}), view="begun"),
    ):
        assert chosen.static().view == "clip"
        assert "view" in chosen.without_effect({"view"})
    assert not options.resolve(own).without_effect({"view"})
    plain, begun = (
        model.sample(PROMPTS, seed=0, order="confidence", view=view) for view in views.NAMES
    )
    np.testing.assert_array_equal(plain.tokens, begun.tokens)
    with pytest.raises(UserError, match="view='part' must be"):
        options.resolve(own, view="part")


def test_the_preset_of_the_released_model_is_the_setting_that_was_compared():
    compared = yaml.safe_load((ROOT / "experiments/samplers.yaml").read_text())["fast"]
    for presets in (
        maskgit.get_config("laptop").presets,
        json.loads((ROOT / "checkpoints/laptop/bundle.json").read_text())["config"]["presets"],
    ):
        fast = json.loads(json.dumps(dict(presets)["fast"], default=dict))
        assert compared.items() <= fast.items()
        paper = json.loads(json.dumps(fast | maskgit.SAMPLER))
        changed = {name for name in fast if fast[name] != paper[name]}
        assert changed == {"schedule", "order", "view", "temperature", "min_p", "continued"}
