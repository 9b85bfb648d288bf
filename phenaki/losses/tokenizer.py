"""The tokenizer's loss, equation 2: reconstruction, perceptual, codebook and adversarial terms."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from phenaki.losses import gan


class Adversary(NamedTuple):
    """How a discriminator trains next to the tokenizer."""

    loss: Callable[..., gan.GANLosses]  # see gan.make_gan_loss
    optimizer: optax.GradientTransformation
    average_decay: float  # of the mean logits for LeCam
    adaptive_limit: float  # of VQGAN's adaptive weight on the generator's term; 0: a fixed weight
    start: int = 0  # the first step that trains it, as in gan.make_gan_loss


class LossOutput(NamedTuple):
    """The loss of one sub-batch and what the step needs besides."""

    loss: jax.Array  # the tokenizer's loss plus the discriminator's; the gradient is of this sum
    terms: dict[str, jax.Array]  # the tokenizer's weighted terms
    metrics: dict[str, jax.Array]  # "loss/total" is the tokenizer's loss alone
    counts: jax.Array  # [k] how often each code was used
    inputs: jax.Array  # [n e] the quantizer's inputs


@dataclasses.dataclass(frozen=True, eq=False)
class TokenizerLoss:
    """Equation 2 for one sub-batch: loss(params, frozen, real, key, step, averages) -> LossOutput.

    `params` has "generator" (the tokenizer) and, with an `adversary`, "discriminator"; `real` is
    [b f h w 3] in [0, 1]; `averages` are the discriminator's mean logits, None without one.
    """

    model: Any
    weights: Mapping[str, float]  # by term: l2, vq, those of `perceptual`, adversarial
    beta: float  # weight of the commitment loss (equation 1)
    # (frozen, real, fake) -> scalar, or None where the term does not apply to such clips.
    perceptual: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    adversary: Adversary | None = None

    def __call__(self, params, frozen, real, key, step, averages) -> LossOutput:
        out = self.model.apply({"params": params["generator"]}, real)
        quantized = out.quantized
        terms = self._pixel_terms(frozen, real, out.video)
        terms["vq"] = quantized.codebook_loss + self.beta * quantized.commitment_loss
        metrics = {f"loss/{name}": value for name, value in terms.items()}
        metrics |= _errors(real, out.video)
        terms = self._weighted(terms)
        discriminator_loss = jnp.zeros(())
        if self.adversary is not None:
            terms["adversarial"], discriminator_loss, more = self._adversarial(
                self.adversary, params, frozen, real, out.video, key, step, averages
            )
            metrics |= more
        total = sum(terms.values())
        metrics["loss/total"] = total
        counts = jnp.bincount(quantized.tokens.reshape(-1), length=self.model.codebook)
        inputs = quantized.inputs.reshape(-1, self.model.code_dim)
        return LossOutput(total + discriminator_loss, terms, metrics, counts, inputs)

    def _pixel_terms(self, frozen, real, fake) -> dict[str, Any]:
        """The terms that are functions of the pixels, without their weights."""
        terms = {"l2": jnp.square(fake - real).mean()}
        found = {name: term(frozen, real, fake) for name, term in self.perceptual.items()}
        return terms | {name: value for name, value in found.items() if value is not None}

    def _weighted(self, terms):
        return {name: self.weights[name] * value for name, value in terms.items()}

    def _adversarial(self, adversary, params, frozen, real, fake, key, step, averages):
        """(the tokenizer's weighted term, the discriminator's loss, metrics)."""

        def gan_losses(fake):
            return adversary.loss(params["discriminator"], real, fake, averages, step, key)

        losses = gan_losses(fake)
        weight: Any = self.weights["adversarial"]
        metrics = losses.metrics
        if adversary.adaptive_limit:
            decode, last = _last_layer(self.model, params["generator"], real)
            weight *= gan.adaptive_weight(
                decode,
                last,
                lambda fake: sum(self._weighted(self._pixel_terms(frozen, real, fake)).values()),
                lambda fake: gan_losses(fake).generator,
                limit=adversary.adaptive_limit,
            )
            metrics |= {"gan/weight": weight}
        return weight * losses.generator, losses.discriminator, metrics


def _errors(real, fake) -> dict[str, jax.Array]:
    """Mean squared errors of the first frame, which is encoded alone, and of the others.

    "mse/flat" is that of one colour per clip, its mean: what a collapsed tokenizer reaches.
    """
    error = jnp.square(fake - real)
    metrics = {"mse/first": error[:, :1].mean()}
    if real.shape[1] > 1:
        metrics["mse/rest"] = error[:, 1:].mean()
        metrics["mse/flat"] = real.var((1, 2, 3)).mean()
    return metrics


def _last_layer(model, params, real):
    """(the clips as a function of the last layer's parameters, these parameters)."""
    flat = flatten_dict(params)
    last = {path: leaf for path, leaf in flat.items() if path[:-1] in model.output_layers}

    def decode(last):
        return model.apply({"params": unflatten_dict({**flat, **last})}, real).video

    return decode, last


def psnr(mean_squared_error: Float[Array, "..."]) -> Float[Array, "..."]:
    """Peak signal-to-noise ratio in dB for pixels in [0, 1]."""
    return -10 * jnp.log10(jnp.maximum(mean_squared_error, 1e-10))


def perplexity(counts: Float[Array, " k"]) -> Float[Array, ""]:
    """exp of the entropy of code `counts`: k when all codes are used equally, 1 when one is."""
    fraction = counts / jnp.maximum(counts.sum(), 1)
    return jnp.exp(-jnp.sum(fraction * jnp.log(jnp.maximum(fraction, 1e-12))))
