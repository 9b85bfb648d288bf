"""Classifier-free guidance: conditional and unconditional logits from one doubled batch (§2.2)."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phenaki.types import Text

# λ's factor by the fraction of the steps done, this one included; "linear" ends at 1.
RAMPS: Mapping[str, Callable[[Any], Any]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: done,
}


def guide(conditional: Array, unconditional: Array, scale: Array | float) -> Array:
    """l = (1 + λ) l_c - λ l_u, λ = `scale` (docs/paper.md#guidance).

    λ = 0 is the conditional model; the guidance scale of other tools is 1 + λ.
    """
    return (1 + scale) * conditional - scale * unconditional


def guided_logits(
    network: Any, params: Any, text: Text | None, other: Text | None, guided: bool
) -> Callable[[Int[Array, "b s"], Array | float], Float[Array, "b s ..."]]:
    """(tokens, λ) -> logits of `network`, guided towards `text` and away from `other`.

    `network` is a MaskGIT or a token critic: `apply` gives its logits, and with method="context"
    what it needs of a text. Without `text` the network is unconditional. If not `guided`, λ and
    `other` are not used.
    """
    apply = functools.partial(network.apply, {"params": params})
    if text is None:
        return lambda tokens, scale: apply(tokens)
    if guided:
        text = jax.tree.map(lambda *halves: jnp.concatenate(halves), text, other)
    # The text's keys and values do not change from step to step.
    context = apply(text, method="context")

    def logits(tokens, scale):
        if not guided:
            return apply(tokens, context=context)
        # One batch of twice the rows: conditional ones first.
        conditional, unconditional = jnp.split(apply(jnp.tile(tokens, (2, 1)), context=context), 2)
        return guide(conditional, unconditional, scale)

    return logits
