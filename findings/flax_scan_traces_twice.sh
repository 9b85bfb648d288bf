#!/usr/bin/env bash
# flax.linen.scan, as most JAX transformers stack their layers with it.
# Guess: the layer's Python code runs once per trace; saving that is what a scan is for.
# Seen: it runs twice, in init and in every forward pass and gradient, whether the layer is
# recomputed or not; with check_constancy_invariants=False once, and the program is the same.
# Why it matters: tracing is most of what a start waits for when its programs are cached;
# phenaki's stacks give the argument (phenaki/blocks/transformer.py).
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then jax=0.12.0.1; else jax=0.10.2; fi
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==$jax" "jaxlib==$jax" flax==0.12.7 numpy==2.4.6
cat > "$folder/program.py" <<'PY'
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

traced = 0


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        global traced
        traced += 1
        return nn.relu(nn.Dense(8)(x)), None


class Stack(nn.Module):
    options: dict

    @nn.compact
    def __call__(self, x):
        scan = nn.scan(
            nn.remat(Layer, prevent_cse=False), variable_axes={"params": 0},
            split_rngs={"params": True}, length=12, **self.options,
        )
        return scan(name="layers")(x, None)[0].sum()


def times(function, *inputs):
    global traced
    traced = 0
    return function(*inputs), traced


def study(**options):
    stack, x = Stack(options), jnp.ones((2, 8))
    params, in_init = times(jax.eval_shape, stack.init, jax.random.key(0), x)
    lowered, in_step = times(jax.jit(jax.grad(stack.apply)).lower, params, x)
    print(f"traces of the layer in init {in_init}, in a step {in_step}: {options or 'default'}")
    return in_init, in_step, lowered.as_text()


print("flax", flax.__version__, "jax", jax.__version__)
default, once = study(), study(check_constancy_invariants=False)
print("programs equal:", default[2] == once[2])
assert default[:2] == (2, 2) and once[:2] == (1, 1) and default[2] == once[2], "changed"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/program.py"
