"""The T5 v1.1 encoder, the frozen language model that embeds prompts (§2).

Submodules carry T5X's parameter names, so that the tree is the one of its checkpoints:
    token_embedder/embedding                                    [vocabulary, width]
    encoder/relpos_bias/rel_embedding                           [heads, 32], shared by all layers,
                                     or in each layers_i of "scalable" T5 (`relpos_per_layer`)
    encoder/layers_i/pre_attention_layer_norm/scale             [width]
    encoder/layers_i/attention/{query,key,value,out}/kernel     no biases anywhere
    encoder/layers_i/pre_mlp_layer_norm/scale                   [width]
    encoder/layers_i/mlp/{wi_0,wi_1,wo}/kernel
    encoder/encoder_norm/scale                                  [width]
Shapes: b batch, l and k text positions of query and key, h heads, d width.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Float32, Int

from phenaki.blocks import sharding
from phenaki.text.matrix_products import columns, gathered, parameters_stay, rows

RELATIVE_BUCKETS = 32  # the same in every T5 v1.1
MAX_DISTANCE = 128

# Variance 1 / inputs keeps the activations of an untrained encoder of order one.
kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class T5Encoder(nn.Module):
    """Pre-norm transformer over text ids with relative positions only (§2).

    ids [b l] -> [b l width] in `dtype`. Id 0 is padding: no position attends to it, and its own
    rows are meaningless, so pass `ids > 0` along as the mask. Softmax and norms are float32;
    parameters are float32 and cast to `dtype`.
    """

    vocab_size: int
    width: int
    heads: int
    head_dim: int
    layers: int
    mlp_dim: int
    # Initial relative-position biases, in logits; they matter for an encoder used untrained.
    relpos_std: float = 1.0  # standard deviation
    relpos_far: float = 0.0  # subtracted from buckets of several distances (8 and more)
    relpos_per_layer: bool = False  # as in T5X's scalable T5 and umT5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        embedder = nn.Embed(
            self.vocab_size,
            self.width,
            embedding_init=nn.initializers.normal(1.0),
            dtype=self.dtype,
            name="token_embedder",
        )
        stack = EncoderStack(
            heads=self.heads,
            head_dim=self.head_dim,
            layers=self.layers,
            mlp_dim=self.mlp_dim,
            relpos_std=self.relpos_std,
            relpos_far=self.relpos_far,
            relpos_per_layer=self.relpos_per_layer,
            dtype=self.dtype,
            name="encoder",
        )
        return stack(embedder(ids), ids > 0)


class EncoderStack(nn.Module):
    """The layers, their common position biases and the final norm."""

    heads: int
    head_dim: int
    layers: int
    mlp_dim: int
    relpos_std: float
    relpos_far: float
    relpos_per_layer: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        relpos = functools.partial(
            RelativePositionBias, self.heads, self.relpos_std, self.relpos_far, name="relpos_bias"
        )
        bias = jnp.where(mask, 0.0, -1e10)[:, None, None, :]
        if not self.relpos_per_layer:
            bias += relpos()(x.shape[1])
        stay = parameters_stay(x.shape[:2], self.heads, self.head_dim, self.mlp_dim)
        if stay:  # the lookup, too: each device reads its own columns of the embeddings
            x = sharding.constrain(x, {0: "data", 2: sharding.WIDE})
        for index in range(self.layers):
            layer = EncoderLayer(
                heads=self.heads,
                head_dim=self.head_dim,
                mlp_dim=self.mlp_dim,
                relpos=relpos if self.relpos_per_layer else None,
                dtype=self.dtype,
                stay=stay,
                name=f"layers_{index}",
            )
            x = layer(sharding.split_tokens(x), bias)
        return RMSNorm(self.dtype, name="encoder_norm")(x)


class EncoderLayer(nn.Module):
    """Self-attention, then the gated MLP, each on normalised input and added to the residual."""

    heads: int
    head_dim: int
    mlp_dim: int
    relpos: Callable[[], nn.Module] | None  # makes the layer's own position biases
    dtype: Any
    stay: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], bias: Float32[Array, "_ _ _ l"]
    ) -> Float[Array, "b l d"]:
        if self.relpos is not None:
            bias += self.relpos()(x.shape[1])
        common = dict(dtype=self.dtype, stay=self.stay)
        attention = T5Attention(self.heads, self.head_dim, **common, name="attention")
        x = x + attention(RMSNorm(self.dtype, name="pre_attention_layer_norm")(x), bias)
        mlp = GatedMLP(self.mlp_dim, **common, name="mlp")
        return x + mlp(RMSNorm(self.dtype, name="pre_mlp_layer_norm")(x))


class T5Attention(nn.Module):
    """Multi-head self-attention with an additive bias, without 1/sqrt(head_dim), as in T5."""

    heads: int
    head_dim: int
    dtype: Any
    stay: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], bias: Float32[Array, "_ h l l"]
    ) -> Float[Array, "b l d"]:
        product = columns if self.stay else gathered

        def heads_of(name: str, init=kernel_init) -> Float[Array, "b l h e"]:
            projected = dense(self.heads * self.head_dim, self.dtype, name, product, init)(x)
            return rearrange(projected, "b l (h e) -> b l h e", h=self.heads)

        query = heads_of("query", query_init(self.head_dim))
        logits = jnp.einsum(
            "b l h e, b k h e -> b h l k",
            query,
            heads_of("key"),
            preferred_element_type=jnp.float32,
        )
        weights = jax.nn.softmax(logits + bias).astype(self.dtype)
        mixed = jnp.einsum("b h l k, b k h e -> b l h e", weights, heads_of("value"))
        out = dense(x.shape[-1], self.dtype, "out", rows if self.stay else gathered)
        return out(rearrange(mixed, "b l h e -> b l (h e)"))


class GatedMLP(nn.Module):
    """gelu(x wi_0) * (x wi_1), projected back; the tanh approximation of gelu, as T5 v1.1."""

    mlp_dim: int
    dtype: Any
    stay: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        product = columns if self.stay else gathered
        gate = nn.gelu(dense(self.mlp_dim, self.dtype, "wi_0", product)(x), approximate=True)
        hidden = gate * dense(self.mlp_dim, self.dtype, "wi_1", product)(x)
        return dense(x.shape[-1], self.dtype, "wo", rows if self.stay else gathered)(hidden)


class RMSNorm(nn.Module):
    """x / rms(x) * scale with float32 statistics; without mean and bias."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        normed = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
        return normed.astype(self.dtype) * scale.astype(self.dtype)


class RelativePositionBias(nn.Module):
    """Biases [1 h l l] of the attention logits: one per head and bucket of distances."""

    heads: int
    std: float
    far: float

    @nn.compact
    def __call__(self, length: int) -> Float32[Array, "1 h l l"]:
        def init(key, shape, dtype=jnp.float32):
            is_far = np.arange(RELATIVE_BUCKETS) % (RELATIVE_BUCKETS // 2) >= RELATIVE_BUCKETS // 4
            return self.std * jax.random.normal(key, shape, dtype) - self.far * is_far

        table = self.param("rel_embedding", init, (self.heads, RELATIVE_BUCKETS))
        positions = np.arange(length)
        buckets = relative_bucket(positions[None, :] - positions[:, None])
        return jnp.asarray(table)[None, :, buckets]


def relative_bucket(relative: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Bucket, 0 to 31, of `key position - query position`.

    Keys before the query have buckets 0-15, keys after it 16-31. Within a half, each distance below
    8 has its own bucket; larger ones are in 8 buckets of logarithmic width, the last from 91 on.
    """
    half, exact = RELATIVE_BUCKETS // 2, RELATIVE_BUCKETS // 4
    distance = np.abs(relative)
    # Checkpoints were trained with this float32 expression, truncated to an integer. float64 would
    # move distances on the edge of a bucket.
    scaled = distance.astype(np.float32) / np.float32(exact) + np.finfo(np.float32).eps
    octaves = np.log(scaled) / np.float32(np.log(MAX_DISTANCE / exact))
    coarse = exact + (octaves * np.float32(half - exact)).astype(np.int32)
    bucket = np.where(distance < exact, distance, np.minimum(coarse, half - 1))
    return (bucket + half * (relative > 0)).astype(np.int32)


def query_init(head_dim: int) -> nn.initializers.Initializer:
    """Initialiser of the query's kernel, with the 1/sqrt(head_dim) that the logits lack."""
    return nn.initializers.variance_scaling(1.0 / head_dim, "fan_in", "truncated_normal")


def dense(features: int, dtype: Any, name: str, product: Callable, init=kernel_init) -> nn.Dense:
    """A matrix without bias: T5 has none. `product` is one of `phenaki.text.matrix_products`."""
    return nn.Dense(
        features,
        use_bias=False,
        dtype=dtype,
        kernel_init=init,
        dot_general=product,
        name=name,
    )


def random_encoder(seed: int, encoder: T5Encoder) -> dict[str, Any]:
    """Parameters of an untrained encoder, used frozen where no pre-trained T5 is available.

    The same seed gives the same parameters on every host.
    """
    # With a large `relpos_std` each head attends sharply to a fixed distance, and the gated MLPs
    # multiply the heads' outputs. The embeddings are random features of byte n-grams, in which
    # words are linearly separable. A large `relpos_far` keeps the heads within 7 bytes, so that a
    # phrase that training never had leaves the features of other words unchanged.
    return _init(encoder, jax.random.key(seed, impl="threefry2x32"))


@functools.partial(jax.jit, static_argnums=0)
def _init(encoder: T5Encoder, key: Array) -> dict[str, Any]:
    return encoder.init(key, jnp.zeros((1, 1), jnp.int32))["params"]  # any length will do
