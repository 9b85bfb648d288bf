"""One batch of masked tokens through all networks of sampling: text, MaskGIT and critic."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from phenaki.sampling import decode, seeds
from phenaki.sampling.decode import Decoded
from phenaki.sampling.guidance import RAMPS, guided_logits
from phenaki.sampling.options import StaticOptions
from phenaki.sampling.schedules import SCHEDULES
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
    *,
    static: StaticOptions,
) -> Decoded:
    """Fills the masked `tokens` (`network.mask_id`): a pure function, to be compiled.

    `embed` (parameters, ids) gives the texts, None for a model without text. `params` has the
    parameters of "maskgit" and, where they are used, of "text" and "critic". `ids` are those of the
    prompts, all 0 for a sample without text; `negative` those of texts to guide away from, in place
    of no text. `keys` are `row_keys`; `traced` and `static` are halves of `SamplingOptions`.
    """
    text, other = (None, None) if embed is None else _texts(embed, params["text"], ids, negative)
    logits = guided_logits(network, params["maskgit"], text, other, static.guided)
    ramp = RAMPS[static.guidance_schedule]

    def logits_fn(tokens, step):
        return logits(tokens, traced["guidance"] * ramp((step + 1) / static.steps))

    narrow = None
    if static.narrowed:
        limits = {name: traced[name] for name in ("top_k", "top_p")}
        narrow = functools.partial(decode.restrict, **limits)
    return decode.decode(
        logits_fn,
        tokens,
        keys,
        steps=static.steps,
        choice_temperature=traced["choice_temperature"],
        mask_id=network.mask_id,
        schedule=SCHEDULES[static.schedule],
        temperature=traced["temperature"],
        narrow=narrow,
        score_fn=_score_fn(params, text, other, traced, static),
        score_noise=traced["critic_noise"],
        trace=static.trace,
    )


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
    logits = guided_logits(critic, own, text, other, static.critic_guided)
    return lambda tokens: logits(tokens, traced["critic_guidance"])
