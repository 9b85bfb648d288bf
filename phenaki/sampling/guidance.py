"""Classifier-free guidance: conditional and unconditional logits from one doubled batch (§2.2)."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jaxtyping import Array, Float

from phenaki.errors import UserError
from phenaki.sampling.draws import plausible
from phenaki.schema.rules import Number, check
from phenaki.types import Text

Guide = Callable[[Array, Array, Array | float], Array]  # (conditional, unconditional, λ) -> logits

# λ's factor by the fraction of the steps done, this one included. "linear" rises to 1: at high λ
# the wrong way round, because the first tokens decide the clip (docs/sampling.md#guidance).
# "falling" is its mirror image, from 1 in the first step.
RAMPS: Mapping[str, Callable[[Any, int], Any]] = {
    "constant": lambda done, steps: 1.0,
    "linear": lambda done, steps: done,
    "falling": lambda done, steps: 1 + 1 / steps - done,
}


def guide(conditional: Array, unconditional: Array, scale: Array | float) -> Array:
    """l = (1 + λ) l_c - λ l_u, λ = `scale` (docs/paper.md#guidance).

    λ = 0 is the conditional model; the guidance scale of other tools is 1 + λ.
    """
    return (1 + scale) * conditional - scale * unconditional


def guide_bounded(
    conditional: Float[Array, "b s k"],
    unconditional: Float[Array, "b s k"],
    scale: Array | float,
    limit: Array | float,
    min_p: Array | float,
) -> Float[Array, "b s k"]:
    """`guide` with a bounded push, and among plausible codes only; not in the paper.

    l = log p_c + clip(λ (log p_c - log p_u), ± `limit`) where p_c ≥ `min_p` · max p_c, else -inf.
    Plain guidance lifts codes that both models hold impossible; with neither bound, `limit` = ∞ and
    `min_p` = 0, this is `guide`.
    """
    log_c, log_u = jax.nn.log_softmax(conditional), jax.nn.log_softmax(unconditional)
    push = jnp.clip(scale * (log_c - log_u), -limit, limit)
    return plausible(log_c, min_p) + push


def guided_logits(
    network: Any,
    params: Any,
    text: Text | None,
    other: Text | None,
    guided: bool,
    rule: Guide = guide,
    sometimes: bool = False,
) -> Callable[..., Float[Array, "b s ..."]]:
    """(tokens, λ) -> logits of `network`, guided by `rule` towards `text` and away from `other`.

    What it returns takes the network's `places` and `valid` as keywords, for a part of a clip.

    `network` is a MaskGIT or a token critic: `apply` gives its logits, and with
    method="shared_context" what it needs of a text. Without `text` the network is unconditional. If
    not `guided`, λ and `other` are not used. With `sometimes`, λ = 0 costs no unconditional half of
    the batch.
    """
    apply = functools.partial(network.apply, {"params": network.shared_params(params)})
    if text is None:
        return lambda tokens, scale, **part: apply(tokens, **part)
    # The text's keys and values do not change from step to step.
    alone = apply(text, method="shared_context") if sometimes or not guided else None
    if not guided:
        return lambda tokens, scale, **part: apply(tokens, context=alone, **part)
    # The two rows of a sample are neighbours, so that they are on the same devices.
    text = jax.tree.map(
        lambda *halves: jnp.stack(halves, 1).reshape(-1, *halves[0].shape[1:]), text, other
    )
    context = apply(text, method="shared_context")

    def both(tokens, scale, valid=None, **part):
        # One batch of twice the rows.
        twice = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), (tokens, valid))
        part |= {} if valid is None else {"valid": twice[1]}
        out = apply(twice[0], context=context, **part)
        out = out.reshape(len(tokens), 2, *out.shape[1:])
        return rule(out[:, 0], out[:, 1], scale)

    def one(tokens, scale, **part):
        del scale
        return apply(tokens, context=alone, **part)

    if not sometimes:
        return both

    def where_guided(tokens, scale, **part):
        with_part = (functools.partial(function, **part) for function in (both, one))
        return jax.lax.cond(scale != 0, *with_part, tokens, scale)

    return where_guided


def given_scale(options: dict[str, Any]) -> dict[str, Any]:
    """`options` with `guidance`, λ, for a `guidance_scale` of 1 + λ, as other tools count.

    Raises:
        UserError: both are given, or the scale is not a finite number.
    """
    scale, given = options.get("guidance_scale"), options.get("guidance")
    rest = {name: value for name, value in options.items() if name != "guidance_scale"}
    if scale is None:
        return rest
    check("guidance_scale", scale, Number())
    if given is not None:
        raise UserError(f"guidance_scale={scale}, guidance={given}: give one; a scale is 1 + λ.")
    _log_once(float(scale))
    return rest | {"guidance": float(scale) - 1}


@functools.cache
def _log_once(scale: float) -> None:
    logging.warning(
        "guidance_scale=%g is taken as guidance=%g: a scale is 1 + λ.", scale, scale - 1
    )
