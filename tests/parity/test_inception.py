"""The Inception of FID against pytorch_fid's, block by block.

PYTHONPATH=.:tests:tests/helpers python -m parity.test_inception   writes tests/golden/inception.npz
"""

import functools
import unittest.mock
from pathlib import Path

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from parity import torchvision_stand_in  # noqa: E402
from phenaki.features import inception, resize, torch_names, weights  # noqa: E402

with torchvision_stand_in.present():
    fid = pytest.importorskip("pytorch_fid.inception")

pytestmark = pytest.mark.filterwarnings("ignore")  # torchvision's own
GOLDEN = Path(__file__).parents[1] / "golden" / "inception.npz"
PREPROCESSED = drawn.uniform(0, (2, 107, 131, 3))  # the network's inputs, at odd sizes
PIXELS = (drawn.uniform(1, (1, 64, 48, 3)) + 1) / 2
GROUPS = ("Conv2d_4a_3x3", *inception.BLOCKS)


@functools.cache
def reference():
    """pytorch_fid's network before its preprocessing, the whole of it, and our parameters.

    The weights are ours, drawn, and go in where it would download its own.
    """
    leaves = drawn.params(weights.shapes("inception"))
    state = drawn.to_torch(leaves, inception.torch_name)
    tensors = {name: torch.from_numpy(x) for name, x in state.items()}
    with unittest.mock.patch.object(fid, "load_state_dict_from_url", lambda *_, **__: tensors):
        network = fid.fid_inception_v3().eval()
        whole = fid.InceptionV3(resize_input=True, normalize_input=True).eval()
    return network, whole, torch_names.unflatten(leaves)


def nhwc(images) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


def run(network, images: np.ndarray) -> dict[str, np.ndarray]:
    """Activations of `GROUPS`, pool and logits; `network` lacks a forward of its own."""
    pools = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
    names = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", pools[0], "Conv2d_3b_1x1", *GROUPS)
    x, found = torch.from_numpy(images.transpose(0, 3, 1, 2)), {}
    with torch.no_grad():
        for name in names:
            x = getattr(network, name)(x)
            found[name] = nhwc(x)
            if name in pools:
                x = torch.nn.functional.max_pool2d(x, 3, 2)
        pool = x.mean((2, 3))
        return found | {"pool": pool.numpy(), "logits": network.fc(pool).numpy()}


def golden() -> dict[str, np.ndarray]:
    network, _, _ = reference()
    found = run(network, PREPROCESSED)
    return {name: found[name] for name in ("pool", "logits")}


def test_blocks(parity):
    network, _, params = reference()
    theirs = run(network, PREPROCESSED)
    apply = jax.jit(functools.partial(inception.Inception().apply, capture_intermediates=True))
    (pool, logits), captured = apply({"params": params}, jnp.asarray(PREPROCESSED))
    for name in GROUPS:
        (ours,) = captured["intermediates"][name]["__call__"]
        parity("inception", name, ours, theirs[name])
    parity("inception", "pool_3", pool, theirs["pool"])
    parity("inception", "logits", logits, theirs["logits"])


def test_from_pixels_to_features(parity):
    _, network, params = reference()
    theirs = network(torch.from_numpy(PIXELS.transpose(0, 3, 1, 2)))[0]
    ours = jax.jit(inception.features, static_argnums=2)(
        params, jnp.asarray(PIXELS), resize.bilinear
    )
    parity("inception", "from pixels, with resizing", ours.pool, nhwc(theirs)[:, 0, 0])


def test_the_references_state_dict_converts_to_the_weights_it_was_given():
    network, _, params = reference()
    state = {name: x.numpy() for name, x in network.state_dict().items()}
    assert any(name.endswith("num_batches_tracked") for name in state)
    ours = torch_names.flatten(inception.convert(state))
    for path, leaf in torch_names.flatten(params).items():
        np.testing.assert_array_equal(ours[path], leaf)


def test_golden_values_are_the_references():
    stored = np.load(GOLDEN)
    for name, value in golden().items():
        np.testing.assert_allclose(stored[name], value, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **golden())
