"""Writes t5_tiny.npz: a random T5 v1.1 encoder and its outputs according to transformers.

   python tests/golden/make_t5_golden.py   (needs torch and transformers, which the tests do not)

Weights are stored under the parameter paths of `phenaki.text.t5`, renamed as a converter would.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

WIDTH, HEADS, HEAD_DIM, LAYERS, MLP_DIM, VOCABULARY = 16, 4, 6, 2, 24, 32
LENGTHS = (1, 9, 40, 150)  # the last crosses every edge of the relative-position buckets


def renamed(model: T5EncoderModel) -> dict[str, np.ndarray]:
    """The model's weights by T5X path; kernels are [inputs, outputs] there."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    weights = {
        "token_embedder/embedding": state["shared.weight"],
        "encoder/relpos_bias/rel_embedding": state[first].T,
        "encoder/encoder_norm/scale": state["encoder.final_layer_norm.weight"],
    }
    for index in range(LAYERS):
        ours, theirs = f"encoder/layers_{index}", f"encoder.block.{index}.layer"
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            weights[f"{ours}/attention/{name}/kernel"] = state[
                f"{theirs}.0.SelfAttention.{letter}.weight"
            ].T
        for name in ("wi_0", "wi_1", "wo"):
            weights[f"{ours}/mlp/{name}/kernel"] = state[
                f"{theirs}.1.DenseReluDense.{name}.weight"
            ].T
        weights[f"{ours}/pre_attention_layer_norm/scale"] = state[f"{theirs}.0.layer_norm.weight"]
        weights[f"{ours}/pre_mlp_layer_norm/scale"] = state[f"{theirs}.1.layer_norm.weight"]
    return weights


def main() -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=HEAD_DIM,
        num_heads=HEADS,
        d_ff=MLP_DIM,
        num_layers=LAYERS,
        feed_forward_proj="gated-gelu",
    )
    model = T5EncoderModel(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Scales away from one and weights large enough that every term of the maths shows.
            value.copy_(1 + 0.3 * torch.randn_like(value) if "norm" in name else value)
            if "norm" not in name:
                value.copy_(torch.randn_like(value) * (1.0 if value.shape[-1] == HEADS else 0.25))
        ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
        for row, length in zip(ids, LENGTHS, strict=True):
            row[:length] = torch.randint(1, VOCABULARY, (length,))
        output = model(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state
    relative = torch.arange(-512, 513)
    arrays = {f"params/{path}": value for path, value in renamed(model).items()}
    arrays["ids"] = ids.numpy().astype(np.int32)
    arrays["relative_bucket"] = (
        T5Attention._relative_position_bucket(relative).numpy().astype(np.int32)
    )
    arrays["output"] = np.concatenate(
        [rows[:length] for rows, length in zip(output.numpy(), LENGTHS, strict=True)]
    )
    np.savez_compressed(Path(__file__).with_name("t5_tiny.npz"), **arrays)


if __name__ == "__main__":
    main()
