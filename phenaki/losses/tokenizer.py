"""Equation 2 for one sub-batch: reconstruction, perceptual, codebook and adversarial terms."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from phenaki.losses import gan


class Adversary(NamedTuple):
    """The discriminator's side of training."""

    play: Callable[..., gan.GANLosses]  # see adversarial.make_gan_loss
    optimizer: optax.GradientTransformation
    average_decay: float  # of the mean logits for LeCam
    adaptive_limit: float  # of VQGAN's weight on the generator's term; 0 = the fixed weight


class Evaluated(NamedTuple):
    """What a sub-batch gives; the gradient is of `loss`."""

    loss: jax.Array  # what the tokenizer minimises plus what the discriminator does
    terms: dict[str, jax.Array]  # the weighted terms that the tokenizer minimises
    metrics: dict[str, jax.Array]
    counts: jax.Array  # [k] how often each code was used
    inputs: jax.Array  # [n e] what the quantizer was given


def make_objective(
    model,
    *,
    weights: Mapping[str, float],
    beta: float,
    perceptual: Mapping[str, Callable] | None = None,
    adversary: Adversary | None = None,
) -> Callable[..., Evaluated]:
    """Returns evaluate(params, frozen, real, key, step, averages) -> Evaluated.

    `weights` are those of equation 2 by term: l2, vq, the names of `perceptual`, and adversarial;
    `beta` weighs the commitment (equation 1). `perceptual` has functions (frozen, real, fake) ->
    scalar, or None where the term does not apply to such clips.

    `params` has "generator" and, with an adversary, "discriminator"; `real` is [b f h w 3] in
    [0, 1]. The metrics' "loss/total" is the tokenizer's alone.
    """
    perceptual = perceptual or {}

    def pixel_terms(frozen, real, fake):
        terms = {"l2": jnp.square(fake - real).mean()}
        found = {name: loss(frozen, real, fake) for name, loss in perceptual.items()}
        return terms | {name: value for name, value in found.items() if value is not None}

    def weighted(terms):
        return {name: weights[name] * value for name, value in terms.items()}

    def adversarial_terms(adversary, params, frozen, real, fake, key, step, averages):
        """(the tokenizer's weighted term, the discriminator's loss, metrics)."""

        def play(fake):
            return adversary.play(params["discriminator"], real, fake, averages, step, key)

        outcome = play(fake)
        weight: Any = weights["adversarial"]
        metrics = outcome.metrics
        if adversary.adaptive_limit:
            decode, last = _last_layer(model, params["generator"], real)
            weight *= gan.adaptive_weight(
                decode,
                last,
                lambda fake: sum(weighted(pixel_terms(frozen, real, fake)).values()),
                lambda fake: play(fake).generator,
                limit=adversary.adaptive_limit,
            )
            metrics |= {"gan/weight": weight}
        return weight * outcome.generator, outcome.discriminator, metrics

    def evaluate(params, frozen, real, key, step, averages):
        out = model.apply({"params": params["generator"]}, real)
        quantized = out.quantized
        vq = quantized.codebook_loss + beta * quantized.commitment_loss
        terms = pixel_terms(frozen, real, out.video) | {"vq": vq}
        error = jnp.square(out.video - real)
        metrics = {f"loss/{name}": value for name, value in terms.items()}
        metrics["mse/first"] = error[:, :1].mean()
        if real.shape[1] > 1:
            metrics["mse/rest"] = error[:, 1:].mean()
        terms = weighted(terms)
        against = jnp.zeros(())
        if adversary is not None:
            terms["adversarial"], against, more = adversarial_terms(
                adversary, params, frozen, real, out.video, key, step, averages
            )
            metrics |= more
        total = sum(terms.values())
        metrics["loss/total"] = total
        counts = jnp.bincount(quantized.tokens.reshape(-1), length=model.codebook)
        inputs = quantized.inputs.reshape(-1, model.code_dim)
        return Evaluated(total + against, terms, metrics, counts, inputs)

    return evaluate


def _last_layer(model, params, real):
    """(the clips as a function of the last layer's parameters, these parameters)."""
    flat = flatten_dict(params)
    last = {path: leaf for path, leaf in flat.items() if path[:-1] in model.output_layers}

    def decode(last):
        return model.apply({"params": unflatten_dict({**flat, **last})}, real).video

    return decode, last
