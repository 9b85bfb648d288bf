"""Gradient norms of the terms of the tokenizer's loss (equation 2)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from phenaki.train import inputs, tokenizer
from phenaki.train.health import Finding
from phenaki.train.stage import Stage

DOMINANT = 100  # times the gradient norm of L2


def check(stage: Stage, state: Any, clips: np.ndarray) -> Finding:
    """Whether a term of equation 2 has a far larger gradient than L2 in the tokenizer."""
    found = norms(stage, state, jnp.asarray(clips))
    largest = max(found, key=lambda name: found[name])
    return Finding(
        "no term dominates the reconstruction",
        found[largest] <= DOMINANT * found["l2"],
        "gradient norms " + ", ".join(f"{name} {norm:.2g}" for name, norm in found.items()),
        f"lower config.loss.{largest.removesuffix(tokenizer.PROXY)}.",
    )


def norms(stage: Stage, state: Any, video: jax.Array) -> dict[str, float]:
    """The norm of each weighted term's gradient in the tokenizer, on uint8 clips [b f h w 3]."""
    discriminator = state.extra.get("discriminator")

    @jax.jit
    def by_term(params):
        def terms(generator):
            both = {"generator": generator}
            averages = None
            if discriminator is not None:
                both["discriminator"] = discriminator["params"]
                averages = discriminator["averages"]
            real = inputs.pixels({"video": video})
            key = jax.random.key(0)
            return stage.loss(both, stage.frozen, real, key, state.step, averages).terms

        values, pullback = jax.vjp(terms, params)
        zeros = jax.tree.map(jnp.zeros_like, values)
        return {
            name: optax.tree.norm(pullback(zeros | {name: jnp.ones_like(value)})[0])
            for name, value in values.items()
        }

    return {name: float(norm) for name, norm in by_term(state.params).items()}
