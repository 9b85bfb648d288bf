"""CLIP with vision transformers, for the CLIP score of Table 2 (arXiv 2103.00020).

Submodules, with layers stacked on a leading axis:
    vision/{patches,class,position,norm_in,transformer/layers,norm_out,projection}
    text/{token_embedding,position,transformer/layers,norm_out,projection}
    logit_scale
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from phenaki.blocks.attention import SelfAttention
from phenaki.blocks.dense import Dense
from phenaki.blocks.quantizer import normalize
from phenaki.features.clip_names import HEAD_DIM
from phenaki.features.clip_names import convert as convert

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of its training images
STD = (0.26862954, 0.26130258, 0.27577711)
COMMON = dict(size=224, text_depth=12, length=77, vocabulary=49_408)
SIZES = {
    "clip_b32": COMMON
    | dict(patch=32, vision_width=768, vision_depth=12, text_width=512, embedding=512),
    "clip_l14": COMMON
    | dict(patch=14, vision_width=1024, vision_depth=24, text_width=768, embedding=768),
}
SMALL_INIT = nn.initializers.normal(0.02)


def norm(name: str) -> nn.LayerNorm:
    """LayerNorm with CLIP's epsilon."""
    return nn.LayerNorm(epsilon=1e-5, name=name)


class CLIPLayer(nn.Module):
    """A pre-LayerNorm layer whose GELU is approximated by x·sigmoid(1.702x)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], mask):
        width = x.shape[-1]
        attention = SelfAttention(width // HEAD_DIM, name="attention")
        x = x + attention(norm("norm_attention")(x), mask)
        y = Dense(4 * width, name="wi")(norm("norm_mlp")(x))
        return x + Dense(width, name="wo")(y * nn.sigmoid(1.702 * y)), None


class CLIPTransformer(nn.Module):
    """`depth` layers with stacked parameters; `mask` broadcasts to [b h s s]."""

    depth: int

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], mask=None) -> Float[Array, "b s d"]:
        layers = nn.scan(
            CLIPLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
            check_constancy_invariants=False,  # it would trace a layer twice
        )
        return layers(name="layers")(x, mask)[0]


class ImageEncoder(nn.Module):
    """Preprocessed pixels [b h w 3] -> projected class token [b e], not normalised."""

    patch: int
    width: int
    depth: int
    embedding: int

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b e"]:
        patch = (self.patch, self.patch)
        patches = nn.Conv(self.width, patch, patch, "VALID", use_bias=False, name="patches")(pixels)
        token = self.param("class", SMALL_INIT, (self.width,))
        x = rearrange(patches, "b m n d -> b (m n) d")
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        x = x + self.param("position", SMALL_INIT, x.shape[1:])
        x = CLIPTransformer(self.depth, name="transformer")(norm("norm_in")(x))
        x = norm("norm_out")(x[:, 0])
        return x @ self.param("projection", SMALL_INIT, (self.width, self.embedding))


class TextEncoder(nn.Module):
    """Ids [b length] -> projected end mark, the largest id, [b e], not normalised."""

    vocabulary: int
    length: int
    width: int
    depth: int
    embedding: int

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b e"]:
        x = nn.Embed(self.vocabulary, self.width, name="token_embedding")(ids)
        x = x + self.param("position", SMALL_INIT, (self.length, self.width))
        mask = jnp.tril(jnp.ones((self.length, self.length), bool))[None, None]
        x = norm("norm_out")(CLIPTransformer(self.depth, name="transformer")(x, mask))
        # The causal mask hides the padding behind the first end mark from it.
        x = x[jnp.arange(x.shape[0]), jnp.argmax(ids, axis=-1)]
        return x @ self.param("projection", SMALL_INIT, (self.width, self.embedding))


class CLIP(nn.Module):
    """Images and captions as unit vectors of one space, in float32; sizes as in `SIZES`."""

    size: int
    patch: int
    vision_width: int
    vision_depth: int
    text_width: int
    text_depth: int
    length: int
    vocabulary: int
    embedding: int

    def setup(self):
        self.vision = ImageEncoder(self.patch, self.vision_width, self.vision_depth, self.embedding)
        self.text = TextEncoder(
            self.vocabulary, self.length, self.text_width, self.text_depth, self.embedding
        )
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(jnp.log(1 / 0.07)), ()
        )

    def __call__(
        self, pixels: Float[Array, "b h w 3"], ids: Int[Array, "c l"]
    ) -> Float[Array, "b c"]:
        """Logits of each image against each caption: cosines times the learned scale."""
        images, texts = self.image_embeddings(pixels), self.text_embeddings(ids)
        return jnp.exp(self.logit_scale) * images @ texts.T

    def image_embeddings(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b e"]:
        """Unit vectors of images of any size in [0, 1]."""
        # By default TPUs round float32 inputs of products to bfloat16.
        with jax.default_matmul_precision("highest"):
            return normalize(self.vision(preprocess(pixels, self.size)))

    def text_embeddings(self, ids: Int[Array, "b l"]) -> Float[Array, "b e"]:
        """Unit vectors of captions, as rows of `length` ids (`features.bpe`)."""
        with jax.default_matmul_precision("highest"):
            return normalize(self.text(ids))


def preprocess(pixels: Float[Array, "b h w 3"], size: int) -> Float[Array, "b s s 3"]:
    """Resizes the short side to `size` by antialiased bicubic, crops the centre, normalises.

    `pixels` are in [0, 1]. The published pipeline works on bytes: it also rounds after each pass of
    the resize, columns first.
    """
    batch, *sides, channels = pixels.shape
    height, width = (size * side // min(sides) for side in sides)
    for shape in ((sides[0], width), (height, width)):
        pixels = jax.image.resize(pixels, (batch, *shape, channels), "cubic")
        pixels = jnp.clip(pixels, 0, 1)  # overshoots at edges; bytes cannot
    top, left = round((height - size) / 2), round((width - size) / 2)
    pixels = pixels[:, top : top + size, left : left + size]
    return (pixels - jnp.array(MEAN)) / jnp.array(STD)


def score(images: Float[Array, "b e"], texts: Float[Array, "b e"]) -> Float[Array, ""]:
    """CLIP score: the mean cosine of image i with its caption i, in [-1, 1] (not times 100)."""
    return jnp.mean(jnp.sum(images * texts, axis=-1))
