"""I3D against plain torch operators, layer by layer, with weights drawn on either side.

PYTHONPATH=.:tests:tests/helpers python -m parity.test_i3d   writes tests/golden/i3d.npz
"""

import re
from pathlib import Path

import frozen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.features.i3d import I3D, STAGES, TAPS, convert
from phenaki.features.torch_names import flatten, shapes_of

torch = pytest.importorskip("torch")
F = torch.nn.functional

GOLDEN = Path(__file__).parents[1] / "golden" / "i3d.npz"
EXAMPLE = jax.ShapeDtypeStruct((1, 9, 224, 224, 3), jnp.float32)


# --- the reference, on [b c t h w], by pytorch-i3d's names


def pad(x, kernel, strides, value):
    pads = []
    for size, k, s in zip(x.shape[2:], kernel, strides, strict=True):
        total = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
        pads = [total // 2, total - total // 2, *pads]  # F.pad counts axes from the last
    return F.pad(x, pads, value=value)


def pool(x, kernel, strides):
    return F.max_pool3d(pad(x, kernel, strides, -torch.inf), kernel, strides)


def unit(w, name, x, strides=(1, 1, 1)):
    kernel = w[f"{name}.conv3d.weight"]
    x = F.conv3d(pad(x, kernel.shape[2:], strides, 0), kernel, stride=strides)
    mean, variance = w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"]
    scale, shift = w[f"{name}.bn.weight"], w[f"{name}.bn.bias"]
    return F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=1e-3))


def mixed(w, name, x):
    branches = [
        unit(w, f"{name}.b0", x),
        unit(w, f"{name}.b1b", unit(w, f"{name}.b1a", x)),
        unit(w, f"{name}.b2b", unit(w, f"{name}.b2a", x)),
        unit(w, f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1))),
    ]
    return torch.cat(branches, dim=1)


def reference(w, video):
    """Taps of `video` [b f h w 3], whose pixels are in [-1, 1], as arrays [b t m n d]."""
    x, taps = torch.from_numpy(np.array(video)).permute(0, 4, 1, 2, 3), {}
    for name in STAGES:
        if name.startswith("MaxPool"):
            # Only from the fourth level on is time pooled, too.
            kernel = (1, 3, 3) if name[10] in "23" else (3, 3, 3) if "3x3" in name else (2, 2, 2)
            x = pool(x, kernel, (min(kernel[0], 2), 2, 2))
        elif name.startswith("Mixed"):
            x = mixed(w, name, x)
        else:
            x = unit(w, name, x, (2, 2, 2) if name == "Conv3d_1a_7x7" else (1, 1, 1))
        taps[name] = x.permute(0, 2, 3, 4, 1).numpy()
    if min(x.shape[3:]) >= 7:
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        logits = F.conv3d(x, w["logits.conv3d.weight"], w["logits.conv3d.bias"])
        taps |= {
            "pool_mean": x.mean((2, 3, 4)).numpy(),
            "logits_mean": logits.mean((2, 3, 4)).numpy(),
        }
    return taps


def legacy_bilinear(video, size):
    """TensorFlow 1's rule, by gathering: pixel i between floor(i·in/out) and the next."""
    for axis in (2, 3):
        inputs = video.shape[axis]
        position = np.arange(size, dtype=np.float32) * np.float32(inputs / size)
        lower = np.floor(position).astype(int)
        shape = [-1 if i == axis else 1 for i in range(5)]
        share = (position - lower).reshape(shape)
        upper = np.minimum(lower + 1, inputs - 1)
        video = video.take(lower, axis) * (1 - share) + video.take(upper, axis) * share
    return video.astype(np.float32)


# --- from one naming to the other


def torch_name(path):
    """pytorch-i3d's name of one of our parameters."""
    *unit, layer, array = path.split("/")
    branch = re.fullmatch(r"Branch_(\d)\.Conv3d_0(.)_\dx\d", unit[-1])
    if branch:
        unit[-1] = "b0" if branch[1] == "0" else f"b{branch[1]}{branch[2]}"
    if unit[-1].startswith("Logits"):
        unit = ["logits"]
    array = {"kernel": "weight", "beta": "bias", "bias": "bias"}.get(array) or array.replace(
        "moving_", "running_"
    ).replace("variance", "var")
    return ".".join([*unit, {"conv_3d": "conv3d", "batch_norm": "bn"}[layer], array])


def torch_state(params):
    """The torch tensors of our parameters; scales are one."""
    state = {}
    for path, array in flatten(params).items():
        name = torch_name(path)
        array = array.transpose(4, 3, 0, 1, 2) if array.ndim == 5 else array
        state[name] = torch.from_numpy(np.ascontiguousarray(array))
        if name.endswith("bn.bias"):
            state[name.replace("bias", "weight")] = torch.ones(len(array))
    return state


def torch_draw():
    """A state dict drawn by torch."""
    torch.manual_seed(0)
    state = torch_state(frozen.params(shapes_of(I3D(), EXAMPLE)))
    for name, tensor in state.items():
        if name.endswith("conv3d.weight"):
            state[name] = torch.randn_like(tensor) * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = torch.rand_like(tensor) + 0.5
        elif not name.endswith("bn.weight"):
            state[name] = torch.randn_like(tensor) * 0.1
    return state


def test_weights_of_torch_in_ours(parity):
    state = torch_draw()
    params = convert({name: tensor.numpy() for name, tensor in state.items()})
    # 17 frames of 50x70: every stage has an odd size somewhere.
    video = jnp.asarray(np.random.default_rng(2).random((1, 17, 50, 70, 3), np.float32))
    network = I3D(preprocess=lambda video: 2 * video - 1)
    ours = jax.jit(lambda video: network.apply({"params": params}, video, tuple(STAGES)))(video)
    for name, theirs in reference(state, 2 * video - 1).items():
        parity("i3d", name, ours[name], theirs)


def test_our_weights_in_torch(parity):
    params = frozen.params(shapes_of(I3D(), EXAMPLE))
    ours = jax.jit(lambda video: I3D().apply({"params": params}, video, TAPS))(frozen.video())
    theirs = golden()
    for name in ("Conv3d_1a_7x7", "Mixed_5c", "pool_mean", "logits_mean"):
        parity("i3d", f"{name}, 224 px", frozen.sample(ours[name]), theirs[name])
    stored = np.load(GOLDEN)
    for name in TAPS:
        np.testing.assert_allclose(theirs[name], stored[name], atol=1e-4, err_msg=name)


def golden():
    """Sampled taps of the reference under our weights."""
    state = torch_state(frozen.params(shapes_of(I3D(), EXAMPLE)))
    video = 2 * legacy_bilinear(np.asarray(frozen.video()), 224) - 1
    return {name: frozen.sample(tap) for name, tap in reference(state, video).items()}


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **golden())
