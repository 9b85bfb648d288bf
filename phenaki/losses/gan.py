"""GAN losses, R1 and LeCam: the adversarial term of equation 2.

The paper says "StyleGAN" and the weight 0.1. The configs take the rest from MaskGIT and MAGVIT of
the same group: the non-saturating loss, R1 on real frames, training of both networks from step 0.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from phenaki.types import Video

Scalar = Float[Array, ""]
Logits = Float[Array, "..."]


class Losses(NamedTuple):
    """The losses of generator and discriminator, as functions of logits that are high for real."""

    generator: Callable[[Logits], Scalar]  # of fake logits
    discriminator: Callable[[Logits, Logits], Scalar]  # of real and fake logits


class GANLosses(NamedTuple):
    """Both losses of one step. They share a forward pass and no gradient."""

    generator: Scalar  # differentiable in the fake clips only
    discriminator: Scalar  # differentiable in the discriminator's parameters only
    metrics: dict[str, Scalar]


def non_saturating_generator(fake: Logits) -> Scalar:
    """-E log σ(D(x̂)) (Goodfellow et al. 2014)."""
    return jax.nn.softplus(-fake).mean()


def non_saturating_discriminator(real: Logits, fake: Logits) -> Scalar:
    """-E log σ(D(x)) - E log(1 - σ(D(x̂)))."""
    return jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()


def hinge_generator(fake: Logits) -> Scalar:
    """-E D(x̂) (Lim & Ye 2017)."""
    return -fake.mean()


def hinge_discriminator(real: Logits, fake: Logits) -> Scalar:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(x̂)): that of VQGAN without its factor 1/2."""
    return jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean()


LOSSES = {
    "non_saturating": Losses(non_saturating_generator, non_saturating_discriminator),
    "hinge": Losses(hinge_generator, hinge_discriminator),
}


def r1_penalty(discriminate: Callable[[Array], Logits], frames: Float[Array, "*b h w c"]) -> Scalar:
    """E ‖∂D(x)/∂x‖², the norm over a frame's pixels and the mean over frames (Mescheder 2018).

    Without the factor 1/2, as in MaskGIT: its cost of 10 is StyleGAN2's γ = 20.
    """
    gradient = jax.grad(lambda x: discriminate(x).sum())(frames)
    return jnp.square(gradient).sum((-3, -2, -1)).mean()


def lecam_penalty(real: Logits, fake: Logits, averages: Mapping[str, Scalar]) -> Scalar:
    """E max(0, D(x) - ᾱ_fake)² + E max(0, ᾱ_real - D(x̂))² (Tseng et al. 2021), ᾱ `averages`."""
    above = jnp.square(jax.nn.relu(real - averages["fake"])).mean()
    return above + jnp.square(jax.nn.relu(averages["real"] - fake)).mean()


def initial_averages() -> dict[str, Scalar]:
    """Mean logits before the first step. They are part of the train state."""
    return {"real": jnp.zeros(()), "fake": jnp.zeros(())}


def update_averages(
    averages: Mapping[str, Scalar], metrics: Mapping[str, Scalar], decay: float
) -> dict[str, Scalar]:
    """Moves `averages` by 1 - `decay` towards the mean logits in the `metrics` of `GANLosses`."""
    return {
        name: decay * average + (1 - decay) * metrics[f"gan/logit_{name}"]
        for name, average in averages.items()
    }


def adaptive_weight(
    decode: Callable[[Any], Video],
    last: Any,
    reconstruction: Callable[[Video], Scalar],
    adversarial: Callable[[Video], Scalar],
    *,
    limit: float,
) -> Scalar:
    """‖∂L_rec/∂θ‖ / (‖∂L_adv/∂θ‖ + 1e-4), at most `limit`; no gradient (VQGAN, equation 7).

    `decode(last)` gives the fake clips from θ = `last`, the parameters of the last layer that this
    image or video uses. Both losses are functions of these clips.
    """
    fake, pull = jax.vjp(decode, last)
    rec, adv = (
        optax.tree.norm(pull(jax.grad(loss)(fake))[0]) for loss in (reconstruction, adversarial)
    )
    return jax.lax.stop_gradient(jnp.minimum(rec / (adv + 1e-4), limit))


def pick_frames(key: Key[Array, ""], video: Video, count: int | None) -> Float[Array, "b k h w c"]:
    """`count` different random frames of each clip; all of them for None or a shorter clip."""
    frames = video.shape[1]
    if count is None or count >= frames:
        return video
    keys = jax.random.split(key, len(video))
    index = jax.vmap(lambda key: jax.random.permutation(key, frames)[:count])(keys)
    return jnp.take_along_axis(video, index[:, :, None, None, None], axis=1)


class _Logits(NamedTuple):
    real: Logits
    fake: Logits  # gradient to the discriminator only
    fooling: Logits  # of the same fakes, gradient to the generator only


def _discriminate(discriminate, params, real, fake) -> _Logits:
    constant = jax.lax.stop_gradient
    return _Logits(
        real=discriminate(params, real),
        fake=discriminate(params, constant(fake)),
        fooling=discriminate(constant(params), fake),
    )


def _weighted_r1(discriminate, params, real, weight):
    return weight * r1_penalty(lambda frames: discriminate(params, frames), real)


def _metrics(logits: _Logits) -> dict[str, Scalar]:
    return {
        "gan/logit_real": logits.real.mean(),
        "gan/logit_fake": logits.fake.mean(),
        "gan/accuracy_real": (logits.real > 0).mean(),
        "gan/accuracy_fake": (logits.fake < 0).mean(),
    }


def make_gan_loss(
    discriminate: Callable[[Any, Array], Logits],
    losses: Losses,
    *,
    frames: int | None,
    start: int,
    r1: float,
    r1_every: int,
    lecam: float,
) -> Callable[..., GANLosses]:
    """Returns gan_loss(params, real, fake, averages, step, key) -> GANLosses.

    `discriminate(params, clips)` gives logits. It sees `frames` frames of each clip (None: all),
    the same ones of the real clip and of its fake. `r1` and `lecam` weigh the penalties, 0 for
    none; R1 is computed every `r1_every` steps and multiplied by that number. Before step `start`
    both losses are 0. The metrics hold each term as it enters the sum from then on.

    Generator and discriminator get their own gradients from one backward pass over the sum

        fake = reconstruct(generator_params)
        out = gan_loss(discriminator_params, real, fake, averages, step, key)
        total = weight * out.generator + other_terms(fake) + out.discriminator

    with respect to (generator_params, discriminator_params). XLA merges the two forward passes
    over `fake`.
    """

    def gan_loss(params, real, fake, averages, step, key) -> GANLosses:
        real = jax.lax.stop_gradient(pick_frames(key, real, frames))
        fake = pick_frames(key, fake, frames)
        logits = _discriminate(discriminate, params, real, fake)
        generator = losses.generator(logits.fooling)
        terms = {"gan/discriminator": losses.discriminator(logits.real, logits.fake)}
        if r1:
            penalty = functools.partial(_weighted_r1, discriminate, params, real, r1 * r1_every)
            # Every step has the penalty without a branch; otherwise the others skip its cost.
            terms["gan/r1"] = (
                penalty()
                if r1_every == 1
                else jax.lax.cond(step % r1_every == 0, penalty, lambda: jnp.zeros(()))
            )
        if lecam:
            terms["gan/lecam"] = lecam * lecam_penalty(logits.real, logits.fake, averages)
        started = (step >= start).astype(jnp.float32)
        metrics = {"gan/generator": generator, **_metrics(logits), **terms}
        return GANLosses(
            started * generator, started * sum(terms.values()), jax.lax.stop_gradient(metrics)
        )

    return gan_loss
