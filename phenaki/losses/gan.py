"""The adversarial term of equation 2: what either player minimises, and R1, LeCam, the weight.

The paper says "StyleGAN" and 0.1 and no more. The defaults of its configs are those of the same
group's MaskGIT and MAGVIT: the non-saturating loss, R1 on real frames, both players from step 0.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from phenaki.errors import UserError
from phenaki.types import Video

Scalar = Float[Array, ""]
Logits = Float[Array, "..."]


class Losses(NamedTuple):
    """What either player minimises, from logits that are high for real."""

    generator: Callable[[Logits], Scalar]  # of fake logits
    discriminator: Callable[[Logits, Logits], Scalar]  # of real and fake logits


class GANLosses(NamedTuple):
    """One round. The losses share a forward pass and no gradient."""

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
    """E max(0, 1 - D(x)) + E max(0, 1 + D(x̂)): VQGAN's without its factor 1/2."""
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
    """Mean logits before the first step; they belong in the checkpoint."""
    return {"real": jnp.zeros(()), "fake": jnp.zeros(())}


def update_averages(
    averages: Mapping[str, Scalar], metrics: Mapping[str, Scalar], decay: float
) -> dict[str, Scalar]:
    """Moves `averages` by 1 - `decay` towards the mean logits of an outcome's `metrics`."""
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
    """‖∂L_rec/∂θ‖ / (‖∂L_adv/∂θ‖ + 1e-4), at most `limit`; a constant (VQGAN, equation 7).

    `decode(last)` gives the fake clips from the last layer's parameters θ = `last`, all that this
    image or video uses; both losses are functions of these clips.
    """
    fake, pull = jax.vjp(decode, last)
    rec, adv = (
        optax.tree.norm(pull(jax.grad(loss)(fake))[0]) for loss in (reconstruction, adversarial)
    )
    return jax.lax.stop_gradient(jnp.minimum(rec / (adv + 1e-4), limit))


def pick_frames(key: Key[Array, ""], video: Video, count: int | None) -> Float[Array, "b k h w c"]:
    """`count` different frames of each clip at random, or all (None, or no more than that)."""
    frames = video.shape[1]
    if count is None or count >= frames:
        return video
    keys = jax.random.split(key, len(video))
    index = jax.vmap(lambda key: jax.random.permutation(key, frames)[:count])(keys)
    return jnp.take_along_axis(video, index[:, :, None, None, None], axis=1)


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
    """Returns play(params, real, fake, averages, step, key) -> GANLosses.

    `discriminate(params, clips)` gives logits. It sees `frames` frames per clip (None: all), the
    same of the real clip and its fake. Before step `start` neither player learns. `r1` and `lecam`
    are the weights of the penalties, 0 for none; R1 is computed every `r1_every` steps and then
    counts that many times. The metrics hold each term as it enters the sum after `start`.

    The players' parameters get their own gradients from one backward pass over the sum

        fake = reconstruct(generator_params)
        outcome = play(discriminator_params, real, fake, averages, step, key)
        total = weight * outcome.generator + other_terms(fake) + outcome.discriminator

    taken with respect to (generator_params, discriminator_params); the forward passes over `fake`
    are one after XLA has merged them.

    Raises:
        UserError: `frames` or `r1_every` is below 1.
    """
    for name, value in (("frames", frames), ("r1_every", r1_every)):
        if value is not None and value < 1:
            raise UserError(f"config.gan.{name}={value} must be at least 1; nearest is 1.")

    def penalty(params, real, step):
        def weighted():
            return r1_every * r1 * r1_penalty(lambda x: discriminate(params, x), real)

        if r1_every == 1:
            return weighted()
        return jax.lax.cond(step % r1_every == 0, weighted, lambda: jnp.zeros(()))

    def play(
        params: Any,
        real: Video,
        fake: Video,
        averages: Mapping[str, Scalar],
        step: Int[Array, ""],
        key: Key[Array, ""],
    ) -> GANLosses:
        constant = jax.lax.stop_gradient
        real = constant(pick_frames(key, real, frames))
        fake = pick_frames(key, fake, frames)
        real_logits = discriminate(params, real)
        fake_logits = discriminate(params, constant(fake))
        generator = losses.generator(discriminate(constant(params), fake))
        terms = {"gan/discriminator": losses.discriminator(real_logits, fake_logits)}
        if r1:
            terms["gan/r1"] = penalty(params, real, step)
        if lecam:
            terms["gan/lecam"] = lecam * lecam_penalty(real_logits, fake_logits, averages)
        playing = (step >= start).astype(jnp.float32)
        metrics = {
            "gan/generator": generator,
            "gan/logit_real": real_logits.mean(),
            "gan/logit_fake": fake_logits.mean(),
            "gan/accuracy_real": (real_logits > 0).mean(),
            "gan/accuracy_fake": (fake_logits < 0).mean(),
        }
        return GANLosses(
            playing * generator, playing * sum(terms.values()), constant(metrics | terms)
        )

    return play
