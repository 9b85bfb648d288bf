"""One batch of masked tokens through all networks of sampling: text, MaskGIT and critic."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from phenaki.sampling import decode, draws, guidance, orders, seeds, views
from phenaki.sampling.decode import Decoded
from phenaki.sampling.options import EDGE
from phenaki.sampling.schedules import SAMPLER_SCHEDULES
from phenaki.sampling.static import StaticOptions
from phenaki.types import Text


def row_keys(seed: int | Array, rows: int, first: int = 0) -> Array:
    """The keys of samples `first` .. `first` + `rows` - 1.

    Sample i depends on `seed` and i only, not on its batch.
    """
    numbers = first + jnp.arange(rows)
    return jax.vmap(jax.random.fold_in, (None, 0))(seeds.root_key(seed), numbers)


def sample_tokens(
    network: Any,
    embed: Callable[[Any, Array], Text] | None,
    params: Mapping[str, Any],
    tokens: Int[Array, "b s"],
    ids: Int[Array, "b l"] | None,
    negative: Int[Array, "b l"] | None,
    keys: Array,
    traced: Mapping[str, Any],
    unfinished: decode.Unfinished | None = None,
    *,
    static: StaticOptions,
) -> Decoded:
    """Fills the masked `tokens` (`network.mask_id`): a pure function, to be compiled.

    `embed` (parameters, ids) gives the texts, None for a model without text. `params` has the
    parameters of "maskgit" and, where they are used, of "text", "critic" and "student". `ids` are
    those of the prompts, all 0 for a sample without text; `negative` those of texts to guide away
    from, in place of no text. `keys` are `row_keys`; `traced` and `static` are halves of
    `SamplingOptions`. A student takes the place of `network`, with z by `keys`.
    With `unfinished` a single step is run (`decode`).
    """
    text, other = (None, None) if embed is None else _texts(embed, params["text"], ids, negative)
    logits = _logits(network, params, text, other, keys, traced, static)
    scale = _scale(traced, static)
    seen = None if static.view == views.CLIP else static.views or _whole(static, tokens, network)
    return decode.decode(
        lambda tokens, step, **part: logits(tokens, scale(step), **part),
        tokens,
        keys,
        steps=static.steps,
        choice_temperature=traced["choice_temperature"],
        mask_id=network.mask_id,
        schedule=SAMPLER_SCHEDULES[static.schedule],
        temperature=traced["temperature"],
        ranks=orders.ranks(static.order, network.grid, static.calibrated),
        narrow=_narrow(traced, static),
        score_fn=_score_fn(params, text, other, traced, static),
        score_noise=traced["critic_noise"],
        views=seen,
        costs=_costs(seen, scale, static, text is not None),
        trace=static.trace,
        unfinished=unfinished,
    )


def with_views(
    static: StaticOptions, network: Any, tokens: Int[np.ndarray, "b s"]
) -> StaticOptions:
    """`static` with the views of a call that fills the masked `tokens`: a part of the clip a step.

    Without them, every step passes over the whole clip and hides what is not begun.
    """
    if static.view == views.CLIP:
        return static
    counts, _ = decode.plan(static.steps, tokens.shape[1], SAMPLER_SCHEDULES[static.schedule])
    ranks = orders.ranks(static.order, network.grid, static.calibrated)
    known, (_, rows, columns) = tokens != network.mask_id, network.grid
    return static._replace(views=views.of(known, counts, ranks, rows * columns))


def _whole(static, tokens, network):
    _, rows, columns = network.grid
    return views.whole(static.steps, tokens.shape[1] // (rows * columns))


def _logits(network, params, text, other, keys, traced, static):
    """(tokens, λ) -> logits of the MaskGIT `network`, or of the student for the z of each row."""
    if static.student is None:
        rule: guidance.Guide = guidance.guide
        if static.bounded:
            limits = dict(limit=traced["guidance_limit"], min_p=traced["guidance_min_p"])
            rule = functools.partial(guidance.guide_bounded, **limits)
        return guidance.guided_logits(
            network, params["maskgit"], text, other, static.guided, rule, static.sometimes
        )
    student, own = static.student, params["student"]
    apply = functools.partial(student.apply, {"params": student.shared_params(own)})
    context = None if text is None else apply(text, method="shared_context")
    latent = seeds.latents(keys, student.latent)
    return lambda tokens, scale: apply(tokens, latent=latent, context=context, method="draw")


def _scale(traced, static):
    """step -> its λ, 0 outside of the interval."""
    start, stop = traced["guidance_interval"]

    def scale(step):
        done = (step + 1) / static.steps
        inside = (done > start + EDGE) & (done < stop + EDGE)
        ramp = guidance.RAMPS[static.guidance_schedule](done, static.steps)
        return jnp.where(inside, traced["guidance"] * ramp, 0.0)

    return scale


def _costs(seen, scale, static, has_text):
    """The cost of every step: the part that its pass sees, twice where it is guided."""
    costs = np.ones(static.steps) if seen is None else seen.fractions()
    if not (has_text and static.guided):
        return costs
    guided = jax.vmap(scale)(jnp.arange(static.steps)) != 0 if static.sometimes else True
    return costs * jnp.where(guided, 2, 1)


def _narrow(traced, static):
    """logits -> logits with -inf for codes that may not be sampled; None where all may be."""
    rules: list[Callable[[Array], Array]] = []
    if static.narrowed:
        limits = {name: traced[name] for name in ("top_k", "top_p")}
        rules.append(functools.partial(draws.restrict, **limits))
    if static.min_p:
        rules.append(lambda logits: draws.plausible(logits, traced["min_p"]))
    if not rules:
        return None
    return lambda logits: functools.reduce(lambda x, rule: rule(x), rules, logits)


def _texts(embed, params, ids, negative):
    """(the prompts, what guidance leads away from)."""
    text = embed(params, ids)
    if negative is not None:
        return text, embed(params, negative)
    # Without a negative prompt l_u sees no text: an all-False mask.
    return text, jax.tree.map(jnp.zeros_like, text)


def _score_fn(params, text, other, traced, static):
    """tokens -> the critic's guided logits of "sampled"; None without a critic."""
    critic: Any = static.critic
    if critic is None:
        return None
    # A critic may share the generator's parameters, which its own file does not have.
    own = critic.merge_params(params["critic"], params["maskgit"])
    if not critic.reads_text:
        text = other = None
    logits = guidance.guided_logits(critic, own, text, other, static.critic_guided)
    return lambda tokens: logits(tokens, traced["critic_guidance"])
