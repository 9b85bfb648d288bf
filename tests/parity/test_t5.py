"""T5 v1.1 against transformers: maths at many lengths, T5X's own tiny weights, its safetensors.

PYTHONPATH=.:tests/helpers python tests/golden/make_t5_golden.py   writes tests/golden/t5_tiny.npz
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_files as files

from phenaki.features import tensor_files, torch_names
from phenaki.text import weights
from phenaki.text.t5 import T5Encoder

torch = pytest.importorskip("torch")

from parity.hugging_face import transformers  # noqa: E402

SHARED = Path(__file__).parents[2] / "../shared/data/t5"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs shared/data")
# Distances up to 8, 11, 16, 23, 32, 46, 64, 91 and 128 end a bucket.
LENGTHS = (1, 2, 8, 9, 12, 17, 24, 33, 47, 65, 92, 129, 200)
WIDE = T5Encoder(vocab_size=300, width=64, heads=4, head_dim=16, layers=2, mlp_dim=128)
SCANNED = WIDE.clone(relpos_per_layer=True)
TINY = files.TINY.clone(vocab_size=32128)


def theirs(encoder: T5Encoder):
    """transformers' encoder of our sizes, with weights large enough that every term shows."""
    kind = transformers.UMT5Config if encoder.relpos_per_layer else transformers.T5Config
    config = kind(
        vocab_size=encoder.vocab_size,
        d_model=encoder.width,
        d_kv=encoder.head_dim,
        num_heads=encoder.heads,
        d_ff=encoder.mlp_dim,
        num_layers=encoder.layers,
        feed_forward_proj="gated-gelu",
    )
    name = "UMT5EncoderModel" if encoder.relpos_per_layer else "T5EncoderModel"
    model = getattr(transformers, name)(config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for path, value in model.named_parameters():
            table = "relative_attention_bias" in path or "shared" in path
            std = 0.3 if "norm" in path else 1.0 if table else value.shape[1] ** -0.5
            value.copy_(("norm" in path) + std * torch.randn_like(value))
    return model


def compare(parity, group, encoder, params, model):
    random = np.random.default_rng(0)
    ids = np.zeros((len(LENGTHS), max(LENGTHS)), np.int32)
    for row, length in zip(ids, LENGTHS, strict=True):
        row[:length] = random.integers(1, encoder.vocab_size, length)
    ours = np.asarray(jax.jit(encoder.apply)({"params": params}, jnp.asarray(ids)))
    with torch.no_grad():
        out = model(
            input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(ids > 0).long()
        )
    reference = out.last_hidden_state.numpy()
    valid = ids > 0
    tolerance = 1e-5 / np.abs(reference[valid]).max()  # absolute
    parity("t5", group, ours[valid], reference[valid], tolerance=tolerance)


@pytest.mark.parametrize("encoder", (WIDE, SCANNED), ids=("t5", "umt5"))
@pytest.mark.parametrize("size", ("1GB", "100KB"), ids=("one file", "parts"))
def test_safetensors_of_transformers(encoder, size, parity, tmp_path):
    model = theirs(encoder)
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (size == "100KB")
    params = weights.load(str(tmp_path), encoder, tensor_files.read)
    kind = "umt5" if encoder.relpos_per_layer else "t5"
    compare(parity, f"{kind} safetensors, {size}", encoder, params, model)


def in_transformers(params: dict, encoder: T5Encoder):
    model = theirs(encoder)
    tensors = files.hugging_face(torch_names.flatten(params))
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    model.load_state_dict(state)
    return model


@needs_shared
def test_t5x_tiny_weights(parity):
    params = weights.load(str(SHARED / "test_t5_tiny.checkpoint_0"), TINY, tensor_files.read)
    compare(parity, "T5X fixture, one file", TINY, params, in_transformers(params, TINY))


@needs_shared
def test_t5x_tiny_weights_in_stores(parity, tmp_path):
    whole = weights.load(str(SHARED / "test_t5_tiny.checkpoint_0"), TINY, tensor_files.read)
    tree = files.state(torch_names.flatten(whole))
    path = files.zarr(tmp_path / "checkpoint_5", tree)
    params = weights.load(str(path), TINY, tensor_files.read)
    compare(parity, "T5X fixture, Zarr stores", TINY, params, in_transformers(whole, TINY))
