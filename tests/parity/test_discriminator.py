"""Both discriminators against plain torch operators: logits, R1 and its gradient, both ways.

`python tests/parity/test_discriminator.py` writes the values that the other tests read.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from phenaki.losses.gan import r1_penalty
from phenaki.models.discriminator import Discriminator, StyleGAN2Discriminator

torch = pytest.importorskip("torch")
F = torch.nn.functional

GOLDEN = Path(__file__).parents[1] / "golden" / "discriminator.npz"
WIDTH, SIZE, FRAMES = 6, 64, 4  # 64 px: channels change once; 4 frames: one group
NETWORKS = {"blur": Discriminator(WIDTH), "stylegan2": StyleGAN2Discriminator(WIDTH)}


# --- the references, on NCHW; weights are named as ours and laid out as torch's


def torch_blur(x, pad, stride):
    """A depthwise convolution with the outer product of [1, 3, 3, 1]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = torch.outer(taps, taps)[None, None] / 64
    return F.conv2d(
        F.pad(x, [pad] * 4), kernel.expand(x.shape[1], 1, 4, 4), stride=stride, groups=x.shape[1]
    )


def torch_plain(w, x):
    """MaskGIT's: convolution, blur, convolution; dense layers over the flattened map."""

    def conv(name, x):
        return F.leaky_relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1), 0.2)

    x = conv("conv_in", x)
    for block in blocks(w):
        skip = F.conv2d(torch_blur(x, 1, 2), w[f"{block}.skip.weight"])
        y = conv(f"{block}.conv_1", torch_blur(conv(f"{block}.conv_0", x), 1, 2))
        x = (y + skip) / np.sqrt(2)
    x = conv("conv_out", x).flatten(1)
    x = F.leaky_relu(F.linear(x, w["hidden.weight"], w["hidden.bias"]), 0.2)
    return F.linear(x, w["logit.weight"], w["logit.bias"])[:, 0]


def torch_stylegan2(w, x):
    """StyleGAN2's: equalised layers, stride-2 convolutions behind a blur, one deviation channel."""

    def scaled(name):
        weight = w[f"{name}.weight"]
        return weight / np.sqrt(weight[0].numel())

    def active(x, name):
        bias = w[f"{name}.bias"].reshape(-1, *[1] * (x.ndim - 2))
        return np.sqrt(2) * F.leaky_relu(x + bias, 0.2)

    x = active(F.conv2d(x, scaled("conv_in")), "conv_in")
    for block in blocks(w):
        skip = F.conv2d(torch_blur(x, 1, 1), scaled(f"{block}.skip"), stride=2)
        y = active(F.conv2d(x, scaled(f"{block}.conv_0"), padding=1), f"{block}.conv_0")
        y = F.conv2d(torch_blur(y, 2, 1), scaled(f"{block}.conv_1"), stride=2)
        x = (active(y, f"{block}.conv_1") + skip) / np.sqrt(2)
    deviation = torch.sqrt(x.var(0, unbiased=False) + 1e-8).mean()
    x = torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)
    x = active(F.conv2d(x, scaled("conv_out"), padding=1), "conv_out").flatten(1)
    x = active(F.linear(x, scaled("hidden")), "hidden")
    return F.linear(x, scaled("logit"), w["logit.bias"])[:, 0]


REFERENCES = {"blur": torch_plain, "stylegan2": torch_stylegan2}


def blocks(weights):
    return sorted({name.split(".")[0] for name in weights if name.startswith("block_")})


# --- the map of weights


SIDES = {"hidden": 4, "logit": 1}  # dense layers, and the side of the map that they read


def to_torch(params):
    """Our parameters in torch's layout; its dense layers read a map channel by channel."""
    state = {}
    for (*layer, kind), value in flatten_dict(params).items():
        value = np.asarray(value)
        if kind == "kernel":
            kind = "weight"
            side = SIDES.get(layer[0])
            if side:
                value = value.reshape(side, side, -1, value.shape[-1])
            value = value.transpose(3, 2, 0, 1)
            if side:
                value = value.reshape(len(value), -1)
        state[".".join([*layer, kind])] = torch.tensor(value)
    return state


def to_ours(state, like):
    """The inverse of `to_torch`, in the shapes of the parameters `like`."""
    params = {}
    for path, leaf in flatten_dict(like).items():
        *layer, kind = path
        if kind == "bias":
            value = state[".".join(path)].numpy()
        else:
            value = state[".".join([*layer, "weight"])].numpy()
            if layer[0] in SIDES:
                side = SIDES[layer[0]]
                value = value.reshape(len(value), -1, side, side)
            value = value.transpose(2, 3, 1, 0).reshape(leaf.shape)
        params[path] = jnp.asarray(value)
    return unflatten_dict(params)


# --- what is compared


def random_state(name, seed):
    """Torch weights of the scales that training starts from, and biases that show."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in to_torch(initial(name)).items():
        scale = 1.0 if name == "stylegan2" else (2 / value[0].numel()) ** 0.5
        if key.endswith("bias"):
            scale = 0.1
        state[key] = scale * torch.randn(value.shape, generator=generator)
    return state


def initial(name):
    init = jax.jit(NETWORKS[name].init)
    return init(jax.random.key(1), jnp.zeros((1, SIZE, SIZE, 3)))["params"]


def pixels(seed=0):
    frames = np.random.default_rng(seed).integers(256, size=(FRAMES, SIZE // 8, SIZE // 8, 3))
    # Blocks of one colour: smaller files, and maps that are not all alike.
    return frames.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def torch_values(name, state, frames):
    """Logits, R1 and R1's gradient by weight, in float64."""
    state = {key: value.double().requires_grad_() for key, value in state.items()}
    x = torch.tensor(frames / 255.0).permute(0, 3, 1, 2).requires_grad_()
    logits = REFERENCES[name](state, x)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    penalty = gradient.square().sum((1, 2, 3)).mean()
    penalty.backward()
    gradients = {
        key: torch.zeros_like(value) if value.grad is None else value.grad
        for key, value in state.items()
    }
    return logits.detach().numpy(), penalty.item(), gradients


def our_values(name, params, frames):
    network = NETWORKS[name]
    frames = jnp.asarray(frames, jnp.float32) / 255

    def loss(params):
        def logits(x):
            return network.apply({"params": params}, x)

        return r1_penalty(logits, frames), logits(frames)

    (penalty, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return logits, penalty, gradients


@pytest.fixture
def compare(parity):
    """compare(name, direction, params, state): logits, R1, and R1's gradient layer by layer."""

    def run(name, direction, params, state):
        frames = pixels()
        logits, penalty, gradients = our_values(name, params, frames)
        expected = torch_values(name, state, frames)
        network = f"{name} D"
        parity(network, f"{direction}: logits", logits, expected[0])
        parity(network, f"{direction}: R1", penalty, expected[1])
        ours = to_torch(gradients)
        for layer in gradients:
            names = [key for key in ours if key.startswith(f"{layer}.")]
            parity(
                network,
                f"{direction}: dR1, {layer}",
                np.concatenate([ours[key].ravel() for key in names]),
                np.concatenate([expected[2][key].ravel() for key in names]),
            )

    return run


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_weights_give_torch_values(name, compare):
    state = random_state(name, 0)
    compare(name, "torch's", to_ours(state, initial(name)), state)


@pytest.mark.parametrize("name", NETWORKS)
def test_our_weights_give_torch_our_values(name, compare):
    params = initial(name)
    compare(name, "ours", params, to_torch(params))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_map_of_weights_loses_nothing(name):
    params = initial(name)
    jax.tree.map(np.testing.assert_array_equal, to_ours(to_torch(params), params), params)


def make_golden():
    """Writes the file: weights in our layout, values in torch's arithmetic."""
    frames = pixels()
    arrays = {"frames": frames, "width": np.int32(WIDTH)}
    for name in NETWORKS:
        state = random_state(name, 0)
        params = flatten_dict(to_ours(state, initial(name)), sep="/")
        arrays |= {f"params/{name}/{path}": np.asarray(leaf) for path, leaf in params.items()}
        logits, penalty, gradients = torch_values(name, state, frames)
        arrays[f"logits/{name}"] = logits.astype(np.float32)
        arrays[f"r1/{name}"] = np.float32(penalty)
        gradient = gradients["conv_in.weight"].permute(2, 3, 1, 0)  # to our layout
        arrays[f"r1_gradient/{name}"] = gradient.numpy().astype(np.float32)
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    make_golden()
