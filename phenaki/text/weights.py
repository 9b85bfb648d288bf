"""Loader of pre-trained T5 encoders from T5X checkpoints or Hugging Face's safetensors."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from phenaki.errors import UserError
from phenaki.io.paths import AnyPath
from phenaki.text import hugging_face, sizes, t5x_checkpoint
from phenaki.text.t5 import T5Encoder

Shapes = Mapping[str, tuple[int, ...]]
BIASES = "relpos_bias/rel_embedding"


def load(
    path: str, encoder: T5Encoder, read: Callable[[AnyPath], dict[str, np.ndarray]]
) -> dict[str, Any]:
    """NumPy parameters of `encoder` from a checkpoint of T5X or Hugging Face.

    `read` returns the tensors of a safetensors file. Matrices are in `encoder.dtype`, in which the
    encoder computes; position biases stay float32. Sizes are compared before any array is read.

    Raises:
        UserError: `path` is missing, holds another model, or has damaged arrays.
    """
    convert: Callable[[str, Any], dict[str, Any]]
    if hugging_face.fits(path):
        stored, convert = hugging_face.open_arrays(path, read), hugging_face.convert
    elif other := hugging_face.other_format(path):
        raise UserError(
            f"{path}: holds {other}, which is not read; give its model.safetensors (publishers "
            "have it next to such files; transformers writes it by save_pretrained)."
        )
    elif t5x_checkpoint.exists(path):
        _compare(path, t5x_checkpoint.gin_sizes(path), encoder)
        stored, convert = t5x_checkpoint.open_arrays(path), t5x_checkpoint.convert
    else:
        raise UserError(_how_to_get(path, encoder))
    _check(path, _converted_shapes(stored, convert), encoder)
    params: dict[str, np.ndarray] = {}
    for name, array in stored.items():  # one array at a time: XXL is large
        params |= {
            key: np.ascontiguousarray(part, stored_dtype(key, encoder))
            for key, part in convert(name, _numbers(path, name, array)).items()
        }
    return flax.traverse_util.unflatten_dict(params, sep="/")


def stored_dtype(key: str, encoder: T5Encoder) -> Any:
    """The type in which `load` gives the array of that path, such as "encoder/.../kernel"."""
    return jnp.float32 if key.endswith(BIASES) else encoder.dtype


def _how_to_get(path: str, encoder: T5Encoder) -> str:
    name = sizes.nearest(vars(encoder))
    steps = 1_000_000
    return (
        f"config.text.weights={path!r}: no such file or directory. Get "
        f"gs://t5-data/pretrained_models/t5x/{name}/checkpoint_{steps}, or model.safetensors of "
        f"google/{name.replace('t5_1_1_', 't5-v1_1-')} at Hugging Face (docs/text.md), or give "
        "--config.text.weights=random for an untrained encoder."
    )


def _converted_shapes(stored: Mapping[str, Any], convert: Callable) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, array in stored.items():
        given = jax.ShapeDtypeStruct(array.shape, jnp.float32)
        parts = jax.eval_shape(functools.partial(convert, name), given)
        shapes |= {key: part.shape for key, part in parts.items()}
    return shapes


def _check(path: str, shapes: Shapes, encoder: T5Encoder) -> None:
    """Raises UserError unless the arrays are those of `encoder`."""
    if any(name.endswith("mlp/wi/kernel") for name in shapes):
        raise UserError(
            f"{path}: is a T5 1.0, whose MLPs have one input matrix where T5 v1.1 has two; give a "
            "checkpoint of v1.1."
        )
    try:
        found = _sizes(shapes)
    except KeyError as error:
        raise UserError(f"{path}: array {error} is missing.") from None
    except (ValueError, IndexError):
        raise UserError(f"{path}: its arrays do not have the shapes of a T5.") from None
    _compare(path, found, encoder)
    expected = _shapes_of(encoder)
    for name in sorted(expected.keys() | shapes.keys()):
        if name not in shapes:
            raise UserError(f"{path}: array {name!r} is missing.")
        if name not in expected:
            raise UserError(f"{path}: array {name!r} is unexpected.")
        if shapes[name] != expected[name]:
            raise UserError(
                f"{path}: array {name!r} has shape {shapes[name]}, not {expected[name]}."
            )


@functools.cache
def _shapes_of(encoder: T5Encoder) -> Shapes:
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    params = jax.eval_shape(encoder.init, jax.random.key(0), ids)["params"]
    leaves = flax.traverse_util.flatten_dict(params, sep="/")
    return {name: leaf.shape for name, leaf in leaves.items()}


def _sizes(shapes: Shapes) -> dict[str, int]:
    """The fields of T5Encoder that follow from the shapes."""
    first = "encoder/layers_0/"
    per_layer = f"{first}{BIASES}" in shapes
    vocab_size, width = shapes["token_embedder/embedding"]
    heads, _ = shapes[f"{first if per_layer else 'encoder/'}{BIASES}"]
    _, inner = shapes[f"{first}attention/query/kernel"]
    _, mlp_dim = shapes[f"{first}mlp/wi_0/kernel"]
    layers = {name.split("/")[1] for name in shapes if name.startswith("encoder/layers_")}
    return dict(
        width=width,
        layers=len(layers),
        heads=heads,
        head_dim=inner // heads,
        mlp_dim=mlp_dim,
        vocab_size=vocab_size,
        relpos_per_layer=per_layer,
    )


def _compare(path: str, found: Mapping[str, int], encoder: T5Encoder) -> None:
    for field, size in found.items():
        ours = getattr(encoder, field)
        if ours != size:
            name = sizes.nearest(found)
            same = all(found.get(key, value) == value for key, value in sizes.T5[name].items())
            raise UserError(
                f"config.text.{field}={ours} must be {size}, that of {path}; its sizes are "
                f"{'those of' if same else 'nearest to'} {name}"
                + (f" (--config=FILE:VARIANT,text={name} has them)." if same else ".")
            )


def _numbers(path: str, name: str, array: Any) -> np.ndarray:
    try:
        numbers = np.asarray(array)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: array {name!r} is damaged.") from error
    if not jnp.issubdtype(numbers.dtype, jnp.floating):
        raise UserError(
            f"{path}: array {name!r} holds {numbers.dtype}, not floating-point numbers."
        )
    if not np.isfinite(numbers.sum(dtype=np.float32)):  # a sum is faster than a test of each
        raise UserError(f"{path}: array {name!r} is damaged: it has NaN or infinity.")
    return numbers
