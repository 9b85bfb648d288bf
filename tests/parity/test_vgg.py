"""VGG16's taps and LPIPS against torch and the lpips package.

PYTHONPATH=.:tests:tests/helpers python -m parity.test_vgg   writes tests/golden/vgg.npz
"""

from pathlib import Path

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from parity import torchvision_stand_in  # noqa: E402
from phenaki.features import tensor_files, torch_names, vgg, weights  # noqa: E402

with torchvision_stand_in.present():
    lpips = pytest.importorskip("lpips")

pytestmark = pytest.mark.filterwarnings("ignore")  # torchvision's and lpips' own
GOLDEN = Path(__file__).parents[1] / "golden" / "vgg.npz"
HEADS = Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth"
TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
# Odd sizes, to see how poolings round.
PIXELS = (drawn.uniform(0, (2, 2, 37, 50, 3)) + 1) / 2


def nchw(images: np.ndarray):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def nhwc(images) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


def reference():
    """The lpips package's network with its published heads, its trunk with our drawn weights."""
    network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    leaves = drawn.params(weights.shapes("vgg16"))
    state = drawn.to_torch(leaves, vgg.torch_name)
    trunk = {name.split(".", 1)[1]: name for name in network.net.state_dict()}
    network.net.load_state_dict(
        {trunk[name.removeprefix("features.")]: torch.from_numpy(x) for name, x in state.items()}
    )
    return network, torch_names.unflatten(leaves)


def golden() -> dict[str, np.ndarray]:
    """What the reference gives: each tap's means and last corner; distances under drawn heads."""
    network, _ = reference()
    heads = drawn.to_torch(
        {path: np.abs(x) for path, x in drawn.params(weights.shapes("lpips_vgg")).items()},
        vgg.head_torch_name,
    )
    network.load_state_dict({k: torch.from_numpy(x) for k, x in heads.items()}, strict=False)
    x, y = (nchw(images) for images in PIXELS)
    taps = network.net(network.scaling_layer(2 * x - 1))
    arrays = {"distance": network(x, y, normalize=True).detach().numpy()[:, 0, 0, 0]}
    for name, tap in zip(TAPS, map(nhwc, taps), strict=True):
        arrays |= {f"{name}/mean": tap.mean((1, 2)), f"{name}/corner": tap[:, -1, -1]}
    return arrays


def test_taps(parity):
    network, params = reference()
    theirs = network.net(network.scaling_layer(2 * nchw(PIXELS[0]) - 1))
    for name, ours, tap in zip(
        TAPS, vgg.features(params, jnp.asarray(PIXELS[0])), theirs, strict=True
    ):
        parity("vgg16", name, ours, nhwc(tap))


def test_distance_and_its_gradient(parity):
    network, params = reference()
    heads = vgg.convert_heads(tensor_files.read(HEADS))
    params = {"vgg16": params, "lpips_vgg": heads}
    x, y = (nchw(images) for images in PIXELS)
    x.requires_grad_()
    theirs = network(x, y, normalize=True)[:, 0, 0, 0]
    theirs.sum().backward()
    a, b = jnp.asarray(PIXELS)
    ours, pull = jax.vjp(lambda a: vgg.lpips(params, a, b), a)
    parity("lpips_vgg", "distance", ours, theirs.detach())
    parity("lpips_vgg", "gradient", pull(jnp.ones_like(ours))[0], nhwc(x.grad), tolerance=1e-4)


def test_the_references_state_dict_converts_to_the_weights_it_was_given():
    network, params = reference()
    state = {}
    for name, value in network.net.state_dict().items():
        state[f"features.{name.split('.', 1)[1]}"] = value.numpy()
    ours = torch_names.flatten(vgg.convert(state | {"classifier.0.weight": np.zeros((2, 2))}))
    for path, leaf in torch_names.flatten(params).items():
        np.testing.assert_array_equal(ours[path], leaf)


def test_golden_values_are_the_references():
    stored = np.load(GOLDEN)
    for name, value in golden().items():
        np.testing.assert_allclose(stored[name], value, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **golden())
