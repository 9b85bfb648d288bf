"""Equation 2's adversarial term: values by hand, separate gradients, R1, options, toy training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phenaki.losses import gan
from phenaki.losses.gan import LOSSES, initial_averages, make_gan_loss, r1_penalty
from phenaki.models.discriminator import Discriminator

RNG = np.random.default_rng(0)
MODEL = Discriminator(width=4)
REAL = jnp.asarray(RNG.uniform(size=(2, 3, 8, 8, 3)), jnp.float32)
GENERATOR = {"gain": jnp.float32(0.5), "shift": jnp.float32(0.1)}
KEY = jax.random.key(0)
ZERO = jnp.zeros((), jnp.int32)


def discriminate(params, clips):
    return MODEL.apply({"params": params}, clips)


def reconstruct(params, video):
    return params["gain"] * video + params["shift"]


def random_params(biases=0.1):
    """As initialised, but with biases of this size."""
    init = MODEL.init(jax.random.key(1), REAL)["params"]

    def shift(path, leaf):
        noise = RNG.normal(scale=biases, size=leaf.shape).astype(np.float32)
        return leaf + noise * (path[-1].key == "bias")

    return jax.tree_util.tree_map_with_path(shift, init)


PARAMS = random_params()


def make(discriminate=discriminate, **changes):
    values = dict(frames=None, start=0, r1=10.0, r1_every=1, lecam=0.0) | changes
    return make_gan_loss(discriminate, LOSSES["non_saturating"], **values)


def nonzero(tree):
    return [bool(np.any(leaf)) for leaf in jax.tree.leaves(tree)]


# --- values


def test_losses_by_hand():
    real, fake = jnp.array([0.0, 2.0]), jnp.array([-1.0, 3.0])
    # softplus at 0, -2, -1, 3: 0.693147, 0.126928, 0.313262, 3.048587; at 1, -3: 1.313262, 0.048587
    loss = LOSSES["non_saturating"]
    np.testing.assert_allclose(loss.discriminator(real, fake), 2.090962, rtol=1e-6)
    np.testing.assert_allclose(loss.generator(fake), 0.680925, rtol=1e-6)
    # (1 + 0) / 2 + (0 + 4) / 2, and -(-1 + 3) / 2
    loss = LOSSES["hinge"]
    assert loss.discriminator(real, fake) == 2.5
    assert loss.generator(fake) == -1


def test_lecam_by_hand():
    real, fake = jnp.array([0.0, 2.0]), jnp.array([-1.0, 3.0])
    averages = {"real": jnp.float32(1), "fake": jnp.float32(-1)}
    # (1² + 3²) / 2 above the fakes' average, (2² + 0) / 2 below the real ones'
    assert gan.lecam_penalty(real, fake, averages) == 7
    metrics = {"gan/logit_real": jnp.float32(3), "gan/logit_fake": jnp.float32(1)}
    moved = gan.update_averages(averages, metrics, 0.75)
    assert (moved["real"], moved["fake"]) == (1.5, -0.5)


# --- who learns from what


@pytest.fixture(scope="module")
def gradients():
    """Each loss's gradients by (generator, discriminator), and those of the sum."""
    gan_loss = make(lecam=1.0)
    averages = {"real": jnp.float32(5), "fake": jnp.float32(-5)}  # LeCam pulls at both logits

    def loss(weights, generator, params):
        out = gan_loss(params, REAL, reconstruct(generator, REAL), averages, ZERO, KEY)
        return weights @ jnp.stack([out.generator, out.discriminator])

    both = jax.jit(jax.grad(loss, argnums=(1, 2)))
    weights = dict(generator=(1.0, 0.0), discriminator=(0.0, 1.0), sum=(1.0, 1.0))
    return {name: both(jnp.array(values), GENERATOR, PARAMS) for name, values in weights.items()}


def test_either_loss_moves_its_own_network_only(gradients):
    to_generator, to_discriminator = gradients["generator"]
    assert all(nonzero(to_generator))
    assert not any(nonzero(to_discriminator))
    to_generator, to_discriminator = gradients["discriminator"]
    assert not any(nonzero(to_generator))
    assert all(nonzero(to_discriminator))


def test_one_backward_pass_gives_both_networks_their_own_gradients(gradients):
    own = (gradients["generator"][0], gradients["discriminator"][1])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), gradients["sum"], own)


def test_the_generators_gradient_fools_the_discriminator():
    gan_loss = make()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def generator_loss(fake):
        out = gan_loss(PARAMS, REAL, fake, initial_averages(), ZERO, KEY)
        return out.generator, out.metrics["gan/logit_fake"]

    fake = REAL[::-1]
    (before, logit), gradient = generator_loss(fake)
    (after, higher), _ = generator_loss(fake - 1e-2 * gradient / jnp.abs(gradient).max())
    assert after < before
    assert higher > logit


def test_one_frame_clips_train_both_networks():
    gan_loss = make(frames=2)  # more than an image has

    def loss(generator, params):
        out = gan_loss(
            params, REAL[:, :1], reconstruct(generator, REAL[:, :1]), initial_averages(), ZERO, KEY
        )
        return out.generator + out.discriminator

    assert all(nonzero(jax.jit(jax.grad(loss, argnums=(0, 1)))(GENERATOR, PARAMS)))


def test_metrics_count_right_answers():
    def brightness(params, clips):
        return clips.mean((-3, -2, -1)) - params

    levels = jnp.array([[0.9, 0.1], [0.8, 0.7]])[:, :, None, None, None]
    real = jnp.broadcast_to(levels, (2, 2, 4, 4, 3))
    out = make(brightness)(jnp.float32(0.5), real, real, initial_averages(), ZERO, KEY)
    values = {name: round(float(value), 5) for name, value in out.metrics.items()}
    assert values["gan/accuracy_real"] == 0.75
    assert values["gan/accuracy_fake"] == 0.25
    assert values["gan/logit_real"] == values["gan/logit_fake"] == 0.125
    assert values["gan/r1"] == round(10 / 48, 5)  # the gradient is 1 / 48 at each of 48 pixels


# --- R1


def test_r1_is_the_mean_over_frames_of_the_squared_gradient():
    """Finite differences over every pixel.

    The network is piecewise linear in the pixels, so central differences err only by rounding
    (1e-7 / 2e-3 of the logit's scale) and in the few pixels whose step crosses a kink.
    """
    step, size = 1e-3, REAL[0, 0].size
    offsets = step * jnp.eye(size).reshape(size, *REAL.shape[2:])
    logits = jax.jit(functools.partial(discriminate, PARAMS))
    norms = []
    for frame in REAL.reshape(-1, *REAL.shape[2:]):
        slope = (logits(frame + offsets) - logits(frame - offsets)) / (2 * step)
        norms.append(jnp.square(slope).sum())
    value = jax.jit(functools.partial(r1_penalty, functools.partial(discriminate, PARAMS)))(REAL)
    np.testing.assert_allclose(value, np.mean(norms), rtol=5e-3)


def r1_of(params):
    return r1_penalty(functools.partial(discriminate, params), REAL)


def test_the_gradient_of_r1_in_closed_form():
    """Without biases D is homogeneous in each kernel that every path crosses, so R1 has degree 2
    in it, and Euler's identity <kernel, ∂R1/∂kernel> = 2 R1 holds exactly."""
    params = random_params(biases=0.0)
    value, gradient = jax.jit(jax.value_and_grad(r1_of))(params)
    for name in ("conv_in", "conv_out", "hidden", "logit"):
        product = jnp.vdot(params[name]["kernel"], gradient[name]["kernel"])
        np.testing.assert_allclose(product, 2 * value, rtol=1e-5, err_msg=name)


def test_the_gradient_of_r1_against_finite_differences():
    """Of a smooth D, where R1 has no jumps: central differences err by the step squared."""
    weights = jnp.asarray(RNG.normal(scale=0.2, size=(48, 6)), jnp.float32)
    frames = jnp.asarray(RNG.uniform(size=(2, 3, 4, 4, 3)), jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def penalty(weights):
        def smooth(x):
            return jnp.tanh(x.reshape(*x.shape[:-3], -1) @ weights).sum(-1)

        return r1_penalty(smooth, frames)

    gradient = penalty(weights)[1]
    direction = gradient / jnp.linalg.norm(gradient)
    step = 1e-2
    slope = (penalty(weights + step * direction)[0] - penalty(weights - step * direction)[0]) / (
        2 * step
    )
    np.testing.assert_allclose(slope, jnp.linalg.norm(gradient), rtol=1e-3)


def test_r1_looks_at_real_frames_only():
    gan_loss = jax.jit(make())

    def r1(real, fake):
        return gan_loss(PARAMS, real, fake, initial_averages(), ZERO, KEY).metrics["gan/r1"]

    other = REAL[:, ::-1] ** 2
    assert r1(REAL, REAL) == r1(REAL, other) > 0
    assert r1(other, REAL) != r1(REAL, REAL)


def test_lazy_r1_is_the_same_on_average():
    def step_gradient(gan_loss, step):
        def loss(params):
            out = gan_loss(params, REAL, 0.5 * REAL, initial_averages(), step, KEY)
            return out.discriminator, out.metrics["gan/r1"]

        return jax.grad(loss, has_aux=True)(PARAMS)

    every = 4
    lazy = jax.jit(functools.partial(step_gradient, make(r1_every=every)))
    steps = [lazy(jnp.int32(step)) for step in range(every)]
    assert [bool(value > 0) for _, value in steps] == [True, False, False, False]
    average = jax.tree.map(lambda *leaves: sum(leaves) / every, *steps)
    eager = jax.jit(functools.partial(step_gradient, make()))(ZERO)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), average, eager
    )


# --- frames, the start, the weight


def test_picked_frames_are_different_and_unbiased():
    clips, frames, count, draws = 3, 5, 2, 2000
    video = jnp.broadcast_to(
        jnp.arange(frames, dtype=jnp.float32)[:, None, None, None], (clips, frames, 1, 1, 1)
    )
    keys = jax.random.split(KEY, draws)
    pick = jax.jit(jax.vmap(lambda key: gan.pick_frames(key, video, count)))
    picked = np.asarray(pick(keys))[..., 0, 0, 0].astype(int)  # [draws clips count]
    assert (picked[..., 0] != picked[..., 1]).all()
    assert (picked[:, 0] != picked[:, 1]).any()  # clips draw for themselves
    shares = np.bincount(picked.ravel(), minlength=frames) / picked.size
    # Five standard deviations of a fraction of 12000 draws.
    np.testing.assert_allclose(shares, 1 / frames, atol=5 * np.sqrt(0.2 * 0.8 / picked.size))


def test_the_discriminator_sees_the_same_frames_of_a_clip_and_its_fake():
    def moments(params, clips):
        assert clips.shape[:2] == (2, 1)
        return params * clips.mean((-3, -2, -1)) ** 3

    gan_loss = make(moments, frames=1)
    for seed in range(5):
        out = gan_loss(jnp.ones(()), REAL, REAL, initial_averages(), ZERO, jax.random.key(seed))
        assert out.metrics["gan/logit_real"] == out.metrics["gan/logit_fake"]


def test_before_the_start_neither_network_learns():
    gan_loss = make(start=3)

    @jax.jit
    def losses_and_gradients(step):
        def loss(generator, params):
            out = gan_loss(
                params, REAL, reconstruct(generator, REAL), initial_averages(), step, KEY
            )
            return out.generator + out.discriminator

        return jax.value_and_grad(loss, argnums=(0, 1))(GENERATOR, PARAMS)

    assert not any(nonzero(losses_and_gradients(jnp.int32(2))))
    assert all(nonzero(losses_and_gradients(jnp.int32(3))))


def test_adaptive_weight_balances_the_last_layer():
    hidden = jnp.asarray(RNG.normal(size=(2, 1, 4, 4, 5)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)

    def weight(kernel, scale=1.0, limit=1e4):
        return gan.adaptive_weight(
            lambda last: hidden @ last,
            kernel,
            lambda video: jnp.square(video).sum() / 2,
            lambda video: scale * video.sum(),
            limit=limit,
        )

    flat = np.asarray(hidden, np.float64).reshape(-1, 5)
    rec = np.linalg.norm(flat.T @ flat @ np.asarray(kernel, np.float64))
    adv = np.linalg.norm(flat.sum(0)) * 3**0.5
    np.testing.assert_allclose(weight(kernel), rec / (adv + 1e-4), rtol=1e-5)
    np.testing.assert_allclose(weight(kernel, scale=10.0), rec / (10 * adv + 1e-4), rtol=1e-5)
    assert weight(kernel, scale=0.0, limit=100.0) == 100
    assert not jax.grad(weight)(kernel).any()  # a constant


# --- training


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminator_learns_to_tell_smooth_from_noisy(loss):
    gan_loss = make_gan_loss(
        discriminate, LOSSES[loss], frames=2, start=0, r1=0.1, r1_every=4, lecam=0.01
    )
    optimizer = optax.adam(3e-3)

    def clips(key):
        real, fake = jax.random.split(key)
        smooth = jnp.broadcast_to(jax.random.uniform(real, (16, 3, 1, 1, 3)), (16, 3, 8, 8, 3))
        return smooth, jax.random.uniform(fake, (16, 3, 8, 8, 3))

    @jax.jit
    def step(carry, index):
        params, opt_state, averages = carry
        keys = jax.random.split(jax.random.fold_in(KEY, index))

        def objective(params):
            out = gan_loss(params, *clips(keys[0]), averages, index, keys[1])
            return out.discriminator, out.metrics

        gradients, metrics = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state)
        averages = gan.update_averages(averages, metrics, 0.9)
        return (optax.apply_updates(params, updates), opt_state, averages), metrics

    carry = (PARAMS, optimizer.init(PARAMS), initial_averages())
    (_, _, averages), metrics = jax.lax.scan(step, carry, jnp.arange(60))
    assert min(metrics["gan/accuracy_real"][0], metrics["gan/accuracy_fake"][0]) < 0.5
    last = {name: float(values[-10:].mean()) for name, values in metrics.items()}
    assert last["gan/accuracy_real"] > 0.9 and last["gan/accuracy_fake"] > 0.9
    assert averages["real"] > averages["fake"]
