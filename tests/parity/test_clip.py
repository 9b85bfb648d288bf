"""CLIP against transformers and against plain torch operators on OpenAI's names.

PYTHONPATH=.:tests:tests/helpers python -m parity.test_clip   writes tests/golden/clip.npz
"""

from pathlib import Path

import frozen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.features import clip
from phenaki.features.clip import CLIP
from phenaki.features.torch_names import flatten, shapes_of

torch = pytest.importorskip("torch")
F = torch.nn.functional

from parity.hugging_face import transformers  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden" / "clip.npz"


def transformers_clip(network: CLIP):
    """transformers' network of our sizes, with random weights."""
    torch.manual_seed(0)
    text = dict(
        vocab_size=network.vocabulary,
        max_position_embeddings=network.length,
        bos_token_id=network.vocabulary - 2,
        eos_token_id=network.vocabulary - 1,
    )
    vision = dict(image_size=network.size, patch_size=network.patch)
    for config, width, depth in (
        (text, network.text_width, network.text_depth),
        (vision, network.vision_width, network.vision_depth),
    ):
        config |= dict(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=depth,
            num_attention_heads=width // 64,
        )
    config = transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=network.embedding
    )
    return transformers.CLIPModel(config).eval()


def numpy_state(model) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def reference(model, pixels, ids) -> dict[str, np.ndarray]:
    """transformers' embeddings and logits; `pixels` [b h w 3] are preprocessed."""
    pixels = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    out = model(input_ids=torch.from_numpy(np.array(ids)).long(), pixel_values=pixels)
    arrays = dict(
        images=out.image_embeds, texts=out.text_embeds, logits=out.logits_per_image.contiguous()
    )
    return {name: tensor.numpy() for name, tensor in arrays.items()}


# --- our weights under transformers' names


def transformers_state(params) -> dict:
    """The tensors of `CLIPModel` that hold our parameters."""
    ours = {path: torch.from_numpy(np.array(array)) for path, array in flatten(params).items()}
    state = {"logit_scale": ours.pop("logit_scale")}
    state["visual_projection.weight"] = ours.pop("vision/projection").T
    state["text_projection.weight"] = ours.pop("text/projection").T
    plain = {
        "vision/class": "embeddings.class_embedding",
        "vision/position": "embeddings.position_embedding.weight",
        "vision/norm_in/scale": "pre_layrnorm.weight",
        "vision/norm_in/bias": "pre_layrnorm.bias",
        "vision/norm_out/scale": "post_layernorm.weight",
        "vision/norm_out/bias": "post_layernorm.bias",
        "text/token_embedding/embedding": "embeddings.token_embedding.weight",
        "text/position": "embeddings.position_embedding.weight",
        "text/norm_out/scale": "final_layer_norm.weight",
        "text/norm_out/bias": "final_layer_norm.bias",
    }
    for path, name in plain.items():
        state[f"{path.split('/')[0]}_model.{name}"] = ours.pop(path)
    kernel = ours.pop("vision/patches/kernel").permute(3, 2, 0, 1)
    state["vision_model.embeddings.patch_embedding.weight"] = kernel
    parts = {
        "attention/out": "self_attn.out_proj",
        "wi": "mlp.fc1",
        "wo": "mlp.fc2",
        "norm_attention": "layer_norm1",
        "norm_mlp": "layer_norm2",
    }
    for path, stacked in ours.items():
        tower, _, _, *part, leaf = path.split("/")
        for index, array in enumerate(stacked):
            layer = f"{tower}_model.encoder.layers.{index}"
            suffix = "bias" if leaf == "bias" else "weight"
            if part == ["attention", "qkv"]:
                for one, name in zip(array.unbind(-3), "qkv", strict=True):
                    one = one.flatten(-2)
                    state[f"{layer}.self_attn.{name}_proj.{suffix}"] = (
                        one.T if one.ndim == 2 else one
                    )
            else:
                array = array.T if leaf == "kernel" else array
                state[f"{layer}.{parts['/'.join(part)]}.{suffix}"] = array
    return state


def golden() -> dict[str, np.ndarray]:
    network, images, texts = frozen.TINY_CLIP, frozen.images(), frozen.captions()
    model = transformers_clip(network)
    params = frozen.params(shapes_of(network, images, texts))
    kept = {name: tensor.contiguous() for name, tensor in transformers_state(params).items()}
    missing, unexpected = model.load_state_dict(kept, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    pixels = torch_preprocess(images, network.size)
    return reference(model, pixels, texts) | {"pixels": pixels}


def torch_preprocess(images, size) -> np.ndarray:
    """torch's antialiased bicubic over columns, then rows; centre crop, mean and deviation."""
    x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    rows, columns = (size * n // min(x.shape[2:]) for n in x.shape[2:])
    for shape in ((x.shape[2], columns), (rows, columns)):
        x = F.interpolate(x, shape, mode="bicubic", antialias=True).clip(0, 1)
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    x = x[:, :, top : top + size, left : left + size].permute(0, 2, 3, 1).numpy()
    return (x - np.float32(clip.MEAN)) / np.float32(clip.STD)


def test_our_weights_in_transformers(parity):
    params = frozen.params(shapes_of(frozen.TINY_CLIP, frozen.images(), frozen.captions()))
    theirs, stored = golden(), np.load(GOLDEN)
    for name in stored:
        np.testing.assert_allclose(theirs[name], stored[name], atol=1e-5, err_msg=name)
    logits = frozen.TINY_CLIP.apply({"params": params}, frozen.images(), frozen.captions())
    parity("clip", "pixels", clip.preprocess(frozen.images(), 32), theirs["pixels"])
    parity("clip", "our weights, logits", logits, theirs["logits"])


# One layer per tower at the published widths, and two with narrow ones.
NETWORKS = {
    "clip tiny": frozen.TINY_CLIP,
    "clip_b32": CLIP(**clip.SIZES["clip_b32"] | dict(vision_depth=1, text_depth=1)),
    "clip_l14": CLIP(
        **clip.SIZES["clip_l14"] | dict(vision_depth=1, text_depth=1, vocabulary=1000)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_transformers_in_ours(name, parity):
    network = NETWORKS[name]
    model = transformers_clip(network)
    state = numpy_state(model)
    params = clip.convert(state)
    random = np.random.default_rng(0)
    size, length, last = network.size, network.length, network.vocabulary - 1
    images = jnp.asarray(random.random((2, size, size, 3), np.float32))
    ids = random.integers(1, last - 1, (2, length)).astype(np.int32)
    ids[0, length // 2 :] = [last] + [0] * (length - length // 2 - 1)
    ids[1, -1] = last

    def run(method, x):
        return jax.jit(lambda x: network.apply({"params": params}, x, method=method))(x)

    theirs = reference(model, clip.preprocess(images, size), ids)
    parity(name, "image embeddings", run(CLIP.image_embeddings, images), theirs["images"])
    parity(name, "text embeddings", run(CLIP.text_embeddings, jnp.asarray(ids)), theirs["texts"])


@pytest.mark.parametrize("name", clip.SIZES)
def test_our_shapes_are_transformers(name):
    network = CLIP(**clip.SIZES[name])
    with torch.device("meta"):
        model = transformers_clip(network)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = shapes_of(network, images, jax.ShapeDtypeStruct((1, 77), jnp.int32))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == sum(
        parameter.numel() for parameter in model.parameters()
    )


# --- OpenAI's names, run by torch operators


def openai_tower(w, prefix, x, mask):
    """The layers below `prefix` on [b s d], by torch's own multi-head attention."""
    index = 0
    while f"{prefix}.{index}.ln_1.weight" in w:
        layer = {
            name.removeprefix(f"{prefix}.{index}."): tensor
            for name, tensor in w.items()
            if name.startswith(f"{prefix}.{index}.")
        }
        width = x.shape[-1]
        attention = torch.nn.MultiheadAttention(width, width // 64, batch_first=True)
        names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        attention.load_state_dict({name: layer[f"attn.{name}"] for name in names})
        y = F.layer_norm(x, (width,), layer["ln_1.weight"], layer["ln_1.bias"])
        x = x + attention.eval()(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = F.layer_norm(x, (width,), layer["ln_2.weight"], layer["ln_2.bias"])
        y = F.linear(y, layer["mlp.c_fc.weight"], layer["mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y)
        x = x + F.linear(y, layer["mlp.c_proj.weight"], layer["mlp.c_proj.bias"])
        index += 1
    return x


@torch.no_grad()
def openai_embeddings(w, pixels, ids):
    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    x = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    patches = F.conv2d(x, w["visual.conv1.weight"], stride=w["visual.conv1.weight"].shape[-1])
    token = w["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([token, patches.flatten(2).transpose(1, 2)], dim=1)
    x = norm("visual.ln_pre", x + w["visual.positional_embedding"])
    x = openai_tower(w, "visual.transformer.resblocks", x, None)
    images = norm("visual.ln_post", x[:, 0]) @ w["visual.proj"]

    ids = torch.from_numpy(np.array(ids)).long()
    x = w["token_embedding.weight"][ids] + w["positional_embedding"]
    hidden = torch.triu(torch.full((ids.shape[1],) * 2, -torch.inf), 1)
    x = norm("ln_final", openai_tower(w, "transformer.resblocks", x, hidden))
    texts = x[torch.arange(len(x)), ids.argmax(-1)] @ w["text_projection"]
    return F.normalize(images).numpy(), F.normalize(texts).numpy()


def openai_draw(network) -> dict:
    """Random tensors of OpenAI's names and shapes for the sizes of `network`."""
    torch.manual_seed(0)
    vision, text = network.vision_width, network.text_width
    positions = 1 + (network.size // network.patch) ** 2
    shapes = {
        "visual.class_embedding": (vision,),
        "visual.conv1.weight": (vision, 3, network.patch, network.patch),
        "visual.positional_embedding": (positions, vision),
        "visual.proj": (vision, network.embedding),
        "token_embedding.weight": (network.vocabulary, text),
        "positional_embedding": (network.length, text),
        "text_projection": (text, network.embedding),
        "logit_scale": (),
    }
    norms = {"visual.ln_pre": vision, "visual.ln_post": vision, "ln_final": text}
    for stack, width, depth in (
        ("visual.transformer.resblocks", vision, network.vision_depth),
        ("transformer.resblocks", text, network.text_depth),
    ):
        for layer in (f"{stack}.{index}" for index in range(depth)):
            norms |= {f"{layer}.ln_1": width, f"{layer}.ln_2": width}
            shapes[f"{layer}.attn.in_proj_weight"] = (3 * width, width)
            shapes[f"{layer}.attn.in_proj_bias"] = (3 * width,)
            for name, rows, columns in (
                ("attn.out_proj", width, width),
                ("mlp.c_fc", 4 * width, width),
                ("mlp.c_proj", width, 4 * width),
            ):
                shapes |= {
                    f"{layer}.{name}.weight": (rows, columns),
                    f"{layer}.{name}.bias": (rows,),
                }
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return {
        name: torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) == 2 else 0.3)
        for name, shape in shapes.items()
    }


def test_openais_weights_in_ours(parity):
    network = frozen.TINY_CLIP
    state = openai_draw(network)
    params = clip.convert({name: tensor.numpy() for name, tensor in state.items()})
    images, ids = frozen.images(), frozen.captions()
    pixels = clip.preprocess(images, network.size)
    for method, inputs, theirs in zip(
        (CLIP.image_embeddings, CLIP.text_embeddings),
        (images, ids),
        openai_embeddings(state, pixels, ids),
        strict=True,
    ):
        ours = network.apply({"params": params}, inputs, method=method)
        parity("clip openai", method.__name__.replace("_", " "), ours, theirs)


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **golden())
