"""Reproducible random weights, for networks too large to store next to their golden values."""

import numpy as np

from phenaki.features import torch_names


def uniform(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 in [-1, 1). NumPy keeps the raw bits of PCG64 the same; those of a Generator's
    distributions may change from version to version."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape))) >> np.uint64(40)
    return (raw.astype(np.float32) * np.float32(2**-23) - 1).reshape(shape)


def params(shapes: torch_names.Shapes) -> dict[str, np.ndarray]:
    """Leaves by path that keep activations of order one, with different normalisations."""
    leaves = {}
    for seed, (path, shape) in enumerate(shapes.items()):
        draw = uniform(seed, shape)
        if path.endswith("kernel"):
            draw *= np.sqrt(6 / np.prod(shape[:-1]), dtype=np.float32)  # variance 2 / inputs
        elif path.endswith(("scale", "var")):
            draw = 1 + draw / 4
        else:
            draw /= 8
        leaves[path] = draw
    return leaves


def to_torch(leaves: dict[str, np.ndarray], torch_name) -> dict[str, np.ndarray]:
    """The inverse of `torch_names.from_torch`."""
    state = {}
    for path, leaf in leaves.items():
        axes = torch_names.torch_axes(path, leaf.ndim)
        state[torch_name(path)] = np.ascontiguousarray(leaf.transpose(np.argsort(axes)))
    return state
