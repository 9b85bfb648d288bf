"""Weights and inputs from which golden values of frozen networks were made; nothing is stored."""

import zlib

import drawn
import jax
import jax.numpy as jnp
import numpy as np

from phenaki.features.clip import CLIP
from phenaki.features.torch_names import Shapes, unflatten

SAMPLES = 64  # values kept of a stage's activations
TINY_CLIP = CLIP(
    size=32,
    patch=16,
    vision_width=128,
    vision_depth=2,
    text_width=64,
    text_depth=2,
    length=12,
    vocabulary=50,
    embedding=24,
)


def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """One array by its path, such that activations stay of order one and every term shows."""
    noise = 3**0.5 * drawn.uniform(zlib.crc32(path.encode()), shape)  # of variance 1
    if path.endswith(("scale", "variance")):
        return 1 + noise / 4
    if path.endswith(("kernel", "projection")):
        inputs = shape[1] if "layers" in path else np.prod(shape[:-1])
        return noise * np.sqrt(2 / inputs, dtype=np.float32)
    return noise if path.endswith(("embedding", "position", "class")) else noise / 8


def params(shapes: Shapes) -> dict:
    """A nested tree of drawn arrays."""
    return unflatten({path: draw(path, shape) for path, shape in shapes.items()})


def video() -> jax.Array:
    """[1 9 40 56 3] in [0, 1]: neither square nor a divisor of 224."""
    return jnp.asarray(drawn.uniform(0, (1, 9, 40, 56, 3)) / 2 + 0.5)


def images() -> jax.Array:
    """[3 50 41 3] in [0, 1]."""
    return jnp.asarray(drawn.uniform(1, (3, 50, 41, 3)) / 2 + 0.5)


def captions() -> jax.Array:
    """[2 12] ids for `TINY_CLIP`: start mark 48, end mark 49, zeros."""
    return jnp.array([[48, 7, 3, 3, 49, *[0] * 7], [48, *range(20, 30), 49]], jnp.int32)


def sample(tap) -> np.ndarray:
    """`SAMPLES` values spread over a stage's activations; all of a mean [b c]."""
    values = np.asarray(tap).reshape(-1)
    if np.ndim(tap) == 2:
        return values
    return values[np.linspace(0, values.size - 1, SAMPLES).astype(int)]
