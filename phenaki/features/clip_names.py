"""CLIP's parameters from its public files, with OpenAI's names or those of transformers."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from phenaki.errors import UserError
from phenaki.features.torch_names import unflatten

HEAD_DIM = 64  # in every CLIP
# Ours: OpenAI's.
NAMES = {
    "vision/class": "visual.class_embedding",
    "vision/patches/kernel": "visual.conv1.weight",
    "vision/position": "visual.positional_embedding",
    "vision/norm_in/scale": "visual.ln_pre.weight",
    "vision/norm_in/bias": "visual.ln_pre.bias",
    "vision/norm_out/scale": "visual.ln_post.weight",
    "vision/norm_out/bias": "visual.ln_post.bias",
    "vision/projection": "visual.proj",
    "text/token_embedding/embedding": "token_embedding.weight",
    "text/position": "positional_embedding",
    "text/norm_out/scale": "ln_final.weight",
    "text/norm_out/bias": "ln_final.bias",
    "text/projection": "text_projection",
    "logit_scale": "logit_scale",
}
LAYERS = {"vision": "visual.transformer.resblocks", "text": "transformer.resblocks"}
LAYER_NAMES = {
    "norm_attention/scale": "ln_1.weight",
    "norm_attention/bias": "ln_1.bias",
    "attention/qkv/kernel": "attn.in_proj_weight",
    "attention/qkv/bias": "attn.in_proj_bias",
    "attention/out/kernel": "attn.out_proj.weight",
    "attention/out/bias": "attn.out_proj.bias",
    "norm_mlp/scale": "ln_2.weight",
    "norm_mlp/bias": "ln_2.bias",
    "wi/kernel": "mlp.c_fc.weight",
    "wi/bias": "mlp.c_fc.bias",
    "wo/kernel": "mlp.c_proj.weight",
    "wo/bias": "mlp.c_proj.bias",
}
# transformers': OpenAI's.
RENAMED = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
# Sizes and indices that the files hold among the weights.
NO_WEIGHTS = re.compile(r"(input_resolution|context_length|vocab_size|.*\.position_ids)$")


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Float32 parameters of `CLIP` from a state dict of OpenAI's or of transformers' `CLIPModel`.

    The number of layers is the file's. Raises UserError for the first tensor that is missing or
    unexpected, in OpenAI's names.
    """
    left = {name: value for name, value in tensors.items() if not NO_WEIGHTS.match(name)}
    if "visual_projection.weight" in left:
        left = _openai(left)
    params = {path: _ours(path, _take(left, name)) for path, name in NAMES.items()}
    for tower, stack in LAYERS.items():
        depth = len({name for name in left if re.match(rf"{stack}\.\d+\.ln_1\.weight", name)})
        for path, name in LAYER_NAMES.items():
            names = [f"{stack}.{index}.{name}" for index in range(max(depth, 1))]
            layers = [_ours(path, _take(left, name)) for name in names]
            params[f"{tower}/transformer/layers/{path}"] = np.stack(layers)
    for name in left:
        raise UserError(f"tensor {name!r} is unexpected.")
    return unflatten(params)


def _take(left, name):
    if name not in left:
        raise UserError(f"tensor {name!r} is missing.")
    return left.pop(name)


def _ours(path, value):
    """The axes of our parameter at `path`; OpenAI keeps its projections as [in, out], as we do."""
    if path == "vision/patches/kernel":
        value = value.transpose(2, 3, 1, 0)
    elif path.endswith("kernel"):
        value = value.T
    if "/qkv/" in path:
        value = value.reshape(*value.shape[:-1], 3, -1, HEAD_DIM)
    return np.asarray(value, np.float32)


def _openai(tensors):
    """transformers' tensors by OpenAI's names: query, key, value in one, projections [in, out]."""
    renamed = {}
    for name, value in tensors.items():
        for theirs, openai in RENAMED.items():
            name = name.replace(theirs, openai)
        renamed[name] = value
    for theirs, openai in PROJECTIONS.items():
        renamed[openai] = _take(renamed, theirs).T
    for query in [name for name in renamed if "self_attn.q_proj." in name]:
        parts = [_take(renamed, query.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        renamed[query.replace("self_attn.q_proj.", "attn.in_proj_")] = np.concatenate(parts)
    return renamed
