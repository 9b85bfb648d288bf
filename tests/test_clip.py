"""CLIP: sizes, the values of an independent implementation, its preprocessing, its converter."""

import functools
from pathlib import Path

import frozen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from phenaki.errors import UserError
from phenaki.features import clip
from phenaki.features.clip import CLIP
from phenaki.features.torch_names import flatten, shapes_of

GOLDEN = Path(__file__).parent / "golden" / "clip.npz"
TINY = frozen.TINY_CLIP


def random_params() -> dict:
    return frozen.params(shapes_of(TINY, frozen.images(), frozen.captions()))


@functools.partial(jax.jit, static_argnums=0)
def run(method, params, *inputs):
    return TINY.apply({"params": params}, *inputs, method=method)


def apply(method, *inputs):
    return run(method, random_params(), *inputs)


def test_embeddings_equal_the_reference():
    golden = np.load(GOLDEN)
    images, texts = frozen.images(), frozen.captions()
    pixels = clip.preprocess(images, TINY.size)
    np.testing.assert_allclose(pixels, golden["pixels"], atol=1e-5)
    np.testing.assert_allclose(apply(CLIP.image_embeddings, images), golden["images"], atol=1e-5)
    np.testing.assert_allclose(apply(CLIP.text_embeddings, texts), golden["texts"], atol=1e-5)
    np.testing.assert_allclose(apply(CLIP.__call__, images, texts), golden["logits"], atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("clip_b32", 151_277_313), ("clip_l14", 427_616_513)])
def test_sizes_are_those_of_the_published_networks(name, count):
    sizes = clip.SIZES[name]
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    texts = jax.ShapeDtypeStruct((1, 77), jnp.int32)
    shapes = shapes_of(CLIP(**sizes), images, texts)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == count
    assert shapes["vision/position"][0] == 1 + (224 // sizes["patch"]) ** 2


def test_a_caption_ends_at_its_first_end_mark():
    texts = frozen.captions()
    embeddings = apply(CLIP.text_embeddings, texts)
    after = apply(CLIP.text_embeddings, texts.at[0, 5:].set(jnp.arange(7) + 20))
    before = apply(CLIP.text_embeddings, texts.at[0, 3].set(4))
    np.testing.assert_array_equal(after, embeddings)
    assert np.abs(before[0] - embeddings[0]).max() > 0.01
    np.testing.assert_array_equal(before[1], embeddings[1])


def test_score_is_the_mean_cosine_of_pairs():
    rows = jnp.array([[1.0, 0], [0, 1], [0.6, 0.8]])
    others = jnp.array([[1.0, 0], [0, -1], [0.8, 0.6]])
    assert clip.score(rows, others) == pytest.approx((1 - 1 + 0.96) / 3)
    images = apply(CLIP.image_embeddings, frozen.images())
    assert clip.score(images, images) == pytest.approx(1)
    # Logits of the whole network are the same cosines, times the learned scale.
    logits = apply(CLIP.__call__, frozen.images(), frozen.captions())
    texts = apply(CLIP.text_embeddings, frozen.captions())
    expected = np.exp(random_params()["logit_scale"]) * images @ texts.T
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def smooth(height: int, width: int) -> np.ndarray:
    """An image in bytes with slopes, an edge and some grain."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.stack([y, x * x, (x > 0.4) * 0.8 + 0.1], -1)
    image += 0.1 * np.random.default_rng(0).random(image.shape)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


# Larger and smaller than the network's 224, upright, lying and square.
@pytest.mark.parametrize(("height", "width"), [(300, 451), (128, 128), (320, 256), (97, 61)])
def test_preprocessing_is_the_published_one_up_to_rounding(height, width):
    image = smooth(height, width)
    short = min(height, width)
    rows, columns = 224 * height // short, 224 * width // short
    resized = Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC)
    top, left = round((rows - 224) / 2), round((columns - 224) / 2)
    expected = np.asarray(resized)[top : top + 224, left : left + 224] / 255
    pixels = clip.preprocess(jnp.asarray(image, jnp.float32)[None] / 255, 224)
    pixels = np.asarray(pixels[0]) * clip.STD + clip.MEAN
    assert pixels.shape == (224, 224, 3)
    # Pillow rounds to bytes after each of its two passes.
    assert np.abs(pixels - expected).max() < 1.6 / 255
    assert np.abs(pixels - expected).mean() < 0.4 / 255


def openai_tensors() -> dict[str, np.ndarray]:
    """A state dict of OpenAI's names and types for a network of one layer per tower."""
    random = np.random.default_rng(0)
    width, patch, embedding = 64, 4, 8
    shapes = {
        "visual.class_embedding": (width,),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.positional_embedding": (5, width),
        "visual.proj": (width, embedding),
        "token_embedding.weight": (11, width),
        "positional_embedding": (7, width),
        "text_projection": (width, embedding),
        "logit_scale": (),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for stack in ("visual.transformer.resblocks.0", "transformer.resblocks.0"):
        for layer, rows, columns in (
            ("attn.out_proj.", width, width),
            ("attn.in_proj_", 3 * width, width),
            ("mlp.c_fc.", 4 * width, width),
            ("mlp.c_proj.", width, 4 * width),
        ):
            shapes |= {f"{stack}.{layer}weight": (rows, columns), f"{stack}.{layer}bias": (rows,)}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{stack}.{norm}.weight": (width,), f"{stack}.{norm}.bias": (width,)}
    tensors = {name: random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    return tensors | {"input_resolution": np.array(8), "context_length": np.array(7)}


def test_openais_halves_become_the_networks_float32():
    tensors = openai_tensors()
    params = flatten(clip.convert(tensors))
    network = CLIP(8, 4, 64, 1, 64, 1, 7, 11, 8)
    inputs = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 7), jnp.int32)
    assert {path: array.shape for path, array in params.items()} == shapes_of(network, *inputs)
    assert {array.dtype for array in params.values()} == {np.dtype(np.float32)}
    kernel = params["text/transformer/layers/attention/qkv/kernel"]
    values = tensors["transformer.resblocks.0.attn.in_proj_weight"]
    np.testing.assert_array_equal(kernel[0, :, 1, 0], values[64:128].T)  # keys follow queries


def test_a_wrong_file_is_refused_by_the_first_name_that_differs():
    tensors = openai_tensors()
    del tensors["transformer.resblocks.0.ln_2.bias"]
    with pytest.raises(UserError, match="'transformer.resblocks.0.ln_2.bias' is missing"):
        clip.convert(tensors)
    with pytest.raises(UserError, match="'visual.layer1.0.conv1.weight' is unexpected"):
        clip.convert(openai_tensors() | {"visual.layer1.0.conv1.weight": np.zeros(1)})
    with pytest.raises(UserError, match="'visual.class_embedding' is missing"):
        clip.convert({})
