#!/usr/bin/env bash
# `optax.contrib.muon` with the parameters of `flax.linen.MultiHeadDotProductAttention`.
# Guess: the four matrices of attention get Muon, biases and the embedding the Adam at its side.
# Seen: Muon goes by the number of axes, and Flax stores attention by heads. The kernels (width, heads,
# size) have three axes and get Adam, without a word; the biases (heads, size) have two and are
# orthogonalised, and so is the table of the embedding.
# Why it matters: attention is a third of a video transformer's weights. Name the matrices by
# `muon_weight_dimension_numbers`; phenaki/train/optim.py lists those that it means.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 optax==0.2.8
cat > "$folder/program.py" <<'PY'
from importlib import metadata

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

print(*(f"{name} {metadata.version(name)}" for name in ("jax", "flax", "optax")), sep=", ")


class Model(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(50, 32, name="embed")(tokens)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4, name="attention")(x)
        return nn.Dense(128, name="mlp")(x)


params = Model().init(jax.random.key(0), jnp.zeros((1, 8), int))["params"]
keys = iter(jax.random.split(jax.random.key(1), 99))
gradients = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), params)
optimizer = optax.contrib.muon(0.01)
updates, _ = optimizer.update(gradients, optimizer.init(params), params)
found = {"Adam": [], "Muon": []}
for path, update in jax.tree_util.tree_leaves_with_path(updates):
    # Adam's first step is the sign of the gradient: every entry is of one size.
    rule = "Adam" if np.ptp(abs(np.asarray(update))) < 1e-6 else "Muon"
    name = ".".join(key.key for key in path)
    found[rule].append(name)
    print(f"{name:24} {update.shape!s:12} {rule}")
heads = ("query", "key", "value")
kernels = {f"attention.{name}.kernel" for name in (*heads, "out")}
assert kernels <= set(found["Adam"])
assert {f"attention.{name}.bias" for name in heads} | {"embed.embedding"} <= set(found["Muon"])
print("kernels of attention: Adam; biases by heads and the embedding: Muon")
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/program.py"
