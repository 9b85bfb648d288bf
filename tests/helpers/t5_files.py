"""Writers of tiny checkpoints in the public formats: T5X's in its four ages, Hugging Face's."""

import json
from pathlib import Path

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from phenaki.text.t5 import T5Encoder

# Every size differs from every other, and none is a public one.
TINY = T5Encoder(vocab_size=40, width=8, heads=4, head_dim=3, layers=2, mlp_dim=16)
GIN = """
from __gin__ import dynamic_registration
import __main__ as train_script
from t5x.examples.t5 import network
from t5x import models_of_tomorrow

# Macros:
# ==============================================================================
MODEL = @models_of_tomorrow.EncoderDecoderModel()
WIDTH = %EMB
EMB = 8

# Parameters for network.T5Config:
# ==============================================================================
network.T5Config.dtype = 'bfloat16'
network.T5Config.emb_dim = %WIDTH
network.T5Config.head_dim = 3
network.T5Config.mlp_activations = ('gelu', 'linear')
network.T5Config.mlp_dim = 16
network.T5Config.num_decoder_layers = 7
network.T5Config.num_encoder_layers = 2
network.T5Config.num_heads = 4
network.T5Config.vocab_size = 40
adafactor.Adafactor.logical_factor_rules = \\
    @adafactor_utils.logical_factor_rules()
"""


def params(encoder: T5Encoder = TINY) -> dict:
    """Parameters by path, drawn at a size at which every term of the maths shows."""
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.ones((1, 1), jnp.int32))["params"]
    random = np.random.default_rng(0)
    return {
        path: (0.3 * random.normal(size=leaf.shape) + path.endswith("scale")).astype(np.float32)
        for path, leaf in flax.traverse_util.flatten_dict(shapes, sep="/").items()
    }


def state(arrays: dict) -> dict:
    """A training state of T5X with this encoder, and with a decoder and an optimiser."""
    trap = {"layers_0": {"kernel": np.zeros((3, 2), np.float32)}}
    target = nested(arrays) | {"decoder": trap}
    return {"state": {"step": np.int32(7), "param_states": {"encoder": trap}}, "target": target}


def nested(arrays: dict) -> dict:
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def scanned(arrays: dict, name: str = "encoder") -> dict:
    """As T5X's scalable T5 stores them: layers stacked along axis 1, heads apart."""
    encoder = TINY.clone(relpos_per_layer=True)
    stacked: dict = {}
    for path, array in arrays.items():
        if path.startswith("encoder/layers_0/"):
            tail = path.removeprefix("encoder/layers_0/")
            layers = [arrays[f"encoder/layers_{i}/{tail}"] for i in range(encoder.layers)]
            if tail.endswith(("query/kernel", "key/kernel", "value/kernel")):
                layers = [a.reshape(-1, encoder.heads, encoder.head_dim) for a in layers]
            elif tail.endswith("out/kernel"):
                layers = [a.reshape(encoder.heads, encoder.head_dim, -1) for a in layers]
            stacked[f"encoder/{name}/{tail}"] = np.stack(layers, axis=1)
        elif not path.startswith("encoder/layers_"):
            stacked[path] = array
    return stacked


def inline(directory: Path, tree: dict) -> Path:
    """T5X, version 3: everything in the msgpack file."""
    directory.mkdir(parents=True)
    content = flax.serialization.msgpack_serialize({"version": 3, "optimizer": tree})
    (directory / "checkpoint").write_bytes(content)
    return directory


def zarr(directory: Path, tree: dict, driver: str = "gfile", metadata: bool = True) -> Path:
    """T5X, version 3: matrices in Zarr stores of several chunks, vectors in the msgpack.

    The stores of decoder and optimiser are named, but not there: reading them would fail.
    """
    directory.mkdir(parents=True)
    leaves = flax.traverse_util.flatten_dict(tree, sep="/")
    for path, leaf in leaves.items():
        if np.ndim(leaf) > 1:
            name = path.replace("/", ".")
            about = {
                "shape": list(leaf.shape),
                "chunks": [-(-size // 2) for size in leaf.shape],
                "compressor": {"id": "gzip", "level": 1},
            }
            spec = {"driver": "zarr", "dtype": str(leaf.dtype), "metadata": about}
            kvstore = {"driver": "file", "path": f"{directory}/{name}/"}
            if path.startswith(("target/encoder", "target/token_embedder")):
                ts.open({**spec, "kvstore": kvstore}, create=True).result().write(leaf).result()
                if not metadata:
                    (directory / name / ".zarray").unlink()
            leaves[path] = {**spec, "kvstore": {"driver": driver, "path": f"{name}/"}}
            if driver == "gcs":
                leaves[path]["kvstore"]["bucket"] = "t5x-dummy-bucket"
    content = {"version": 3, "optimizer": nested(leaves)}
    (directory / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(content))
    return directory


def orbax(directory: Path, tree: dict) -> Path:
    """T5X on the Orbax of 2023: as above in `state`, with names of stores for their addresses."""
    zarr(directory / "state", tree)
    leaves = flax.traverse_util.flatten_dict(tree, sep="/")
    for path, leaf in leaves.items():
        if np.ndim(leaf) > 1:
            leaves[path] = "PLACEHOLDER://" + path.replace("/", ".")
    content = flax.serialization.msgpack_serialize(nested(leaves))
    (directory / "state" / "checkpoint").write_bytes(content)
    return directory


def orbax_of_today(directory: Path, tree: dict, **options: bool) -> Path:
    """T5X's call to the installed Orbax: every leaf in a store, and a list of them in JSON.

    `options` of Orbax's handler, such as use_ocdbt=True, put all leaves into one database.
    """
    directory.mkdir(parents=True)
    handler = ocp.PyTreeCheckpointHandler(**{"use_ocdbt": False, **options})
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(directory.resolve() / "state", tree)
    return directory


def hugging_face(arrays: dict) -> dict:
    """The state dict of transformers' T5EncoderModel with this encoder, written out by hand."""
    tensors = {
        "shared.weight": arrays["token_embedder/embedding"],
        "encoder.embed_tokens.weight": arrays["token_embedder/embedding"],
        "encoder.final_layer_norm.weight": arrays["encoder/encoder_norm/scale"],
    }
    attention = dict(query="q", key="k", value="v", out="o")
    for path, array in arrays.items():
        if "relpos_bias" in path:
            index = path.split("_")[1].split("/")[0] if "layers_" in path else 0
            tail = "0.SelfAttention.relative_attention_bias"
            array = array.T
        elif "layers_" in path:
            _, layer, *tail_of, leaf = path.split("/")
            index = layer.split("_")[1]
            if tail_of[0] == "attention":
                tail = f"0.SelfAttention.{attention[tail_of[1]]}"
            elif tail_of[0] == "mlp":
                tail = f"1.DenseReluDense.{tail_of[1]}"
            else:
                tail = "0.layer_norm" if "attention" in tail_of[0] else "1.layer_norm"
            array = array.T if leaf == "kernel" else array
        else:
            continue
        tensors[f"encoder.block.{index}.layer.{tail}.weight"] = np.ascontiguousarray(array)
    return tensors


def safetensors(path: Path, tensors: dict) -> Path:
    """One safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, start = {"__metadata__": {"format": "pt"}}, 0
    types = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32"}
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        header[name] = dict(
            dtype=types[str(tensor.dtype)], shape=list(tensor.shape), data_offsets=[start, end]
        )
        start = end
    text = json.dumps(header).encode()
    numbers = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    return path


def sharded(directory: Path, tensors: dict, parts: int = 2) -> Path:
    """Several safetensors files and their index; the decoder's file is listed, but not there."""
    weight_map = {"decoder.block.0.layer.0.SelfAttention.q.weight": "absent.safetensors"}
    for part in range(parts):
        name = f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        chosen = dict(list(tensors.items())[part::parts])
        safetensors(directory / name, chosen)
        weight_map |= dict.fromkeys(chosen, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory
