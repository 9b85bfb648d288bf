"""Reader of T5 encoders in Hugging Face's layout: one or several safetensors files.

Names and axes are PyTorch's. Only the encoder and its token embedder are read.
"""

import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.paths import AnyPath

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OTHERS = {  # by the ends of file names
    ".bin": "a pickle of PyTorch",
    ".bin.index.json": "pickles of PyTorch",
    ".pt": "a pickle of PyTorch",
    ".pth": "a pickle of PyTorch",
    ".ckpt": "a pickle of PyTorch",
    "tf_model.h5": "weights of TensorFlow",
    "flax_model.msgpack": "weights of transformers' Flax classes",
    ".gguf": "quantised weights (GGUF)",
}
# A whole T5 has the first, with a copy under the second; a file of the encoder has the second.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
LAYER = re.compile(r"encoder\.block\.(\d+)\.layer\.(.+)\.weight")
BIAS = "0.SelfAttention.relative_attention_bias"
PATHS = {
    "0.SelfAttention.q": "attention/query/kernel",
    "0.SelfAttention.k": "attention/key/kernel",
    "0.SelfAttention.v": "attention/value/kernel",
    "0.SelfAttention.o": "attention/out/kernel",
    BIAS: "relpos_bias/rel_embedding",
    "0.layer_norm": "pre_attention_layer_norm/scale",
    "1.DenseReluDense.wi": "mlp/wi/kernel",
    "1.DenseReluDense.wi_0": "mlp/wi_0/kernel",
    "1.DenseReluDense.wi_1": "mlp/wi_1/kernel",
    "1.DenseReluDense.wo": "mlp/wo/kernel",
    "1.layer_norm": "pre_mlp_layer_norm/scale",
}
TRANSPOSED = ("/kernel", "/rel_embedding")  # PyTorch's matrices are [out in], its tables [rows d]


def fits(path: str) -> bool:
    """Whether `path` is of this layout: a .safetensors file, an index, a directory with either."""
    if path.endswith((".safetensors", ".safetensors.index.json")):
        return True
    return any(paths.is_file(paths.path(path) / name) for name in (SINGLE, INDEX))


def other_format(path: str) -> str | None:
    """What a file of Hugging Face, or a directory of it, holds instead of safetensors.

    None for what does not exist.
    """
    names = [paths.path(path).name] if paths.is_file(path) else paths.names(path)
    return next(
        (what for name in names for end, what in OTHERS.items() if name.endswith(end)), None
    )


def open_arrays(path: str, read: Callable[[AnyPath], dict[str, np.ndarray]]) -> dict[str, Any]:
    """The encoder's tensors by T5X's paths, with PyTorch's axes.

    `read` returns the tensors of one file. Raises UserError for a missing or damaged file, or one
    without an encoder.
    """
    place = paths.path(path)
    if place.is_dir():
        place /= INDEX if paths.is_file(place / INDEX) else SINGLE
    parts: Any = _parts(place) if place.suffix == ".json" else {place: None}
    tensors: dict[str, np.ndarray] = {}
    for file, names in parts.items():
        content = read(file)
        for name in content if names is None else names:
            if name not in content:
                raise UserError(f"{file}: has no tensor {name!r}, which {place.name} lists.")
            if _is_encoder(name):
                tensors[name] = content[name]
    if not any(map(LAYER.fullmatch, tensors)):
        raise UserError(
            f"{path}: holds no T5 encoder (no tensor encoder.block.0...); give a file of T5 v1.1."
        )
    return _renamed(tensors)


def convert(name: str, array: Any) -> dict[str, Any]:
    """A tensor with T5X's axes."""
    return {name: array.T if name.endswith(TRANSPOSED) else array}


def _is_encoder(name: str) -> bool:
    return name.startswith("encoder.") or name in EMBEDDINGS


def _parts(index: AnyPath) -> dict[AnyPath, list[str]]:
    """The files that an index lists for the encoder's tensors, with their tensors."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        parts: dict[AnyPath, list[str]] = {}
        for name in filter(_is_encoder, files):
            parts.setdefault(index.with_name(PurePosixPath(files[name]).name), []).append(name)
    except FileNotFoundError:
        raise UserError(f"{index}: no such file.") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: is no index of safetensors, or is cut short.") from error
    return parts


def _renamed(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    # T5's layers share the biases of the first; umT5's have their own.
    shared = sum(BIAS in name for name in tensors) == 1
    return {_path(name, shared): tensors[name] for name in tensors}


def _path(name: str, shared: bool) -> str:
    if name in EMBEDDINGS:
        return "token_embedder/embedding"
    if name == "encoder.final_layer_norm.weight":
        return "encoder/encoder_norm/scale"
    match = LAYER.fullmatch(name)
    if match is None:
        return name  # not T5's: refused by name where shapes are checked
    if match[2] == BIAS and shared:
        return f"encoder/{PATHS[BIAS]}"
    return f"encoder/layers_{match[1]}/{PATHS.get(match[2], match[2])}"
