#!/usr/bin/env bash
# A depthwise 3x3x3 convolution of video features (`feature_group_count` = channels) on XLA's CPU backend.
# Guess: it costs about 1/channels of a full convolution, as it has so much less to multiply.
# Seen: at 64 channels it takes longer than the full convolution with 64 times the products, and some
# hundred times as long as the same sum written as 27 shifted, scaled copies, which XLA fuses into one
# loop. Its gradient by the kernel is no better.
# Why it matters: position encodings and blocks of many video tokenizers are depthwise. Write the
# sum out on CPUs, as phenaki/blocks/conv3d.py does.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/program.py" <<'PY'
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np

CHANNELS = 64
LAYOUT = ("NDHWC", "DHWIO", "NDHWC")
video = jax.random.normal(jax.random.key(0), (1, 6, 16, 16, CHANNELS))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 1, CHANNELS))


def convolution(groups):
    def of(video, kernel):
        kernel = jnp.tile(kernel, (1, 1, 1, CHANNELS // groups, 1))
        return jax.lax.conv_general_dilated(
            video, kernel, (1, 1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=groups
        )

    return of


def shifted(video, kernel):
    _, t, h, w, _ = video.shape
    padded = jnp.pad(video, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, a : a + t, b : b + h, c : c + w] * kernel[a, b, c, 0]
        for a, b, c in itertools.product(range(3), repeat=3)
    )


def milliseconds(function):
    function = jax.jit(function)
    result, times = function(video, kernel).block_until_ready(), []
    for _ in range(7):
        start = time.perf_counter()
        function(video, kernel).block_until_ready()
        times.append(1e3 * (time.perf_counter() - start))
    return result, min(times)


def by_kernel(function):
    return lambda video, kernel: jax.grad(lambda k: function(video, k).sum())(kernel)


print("jax", jax.__version__)
(depthwise, slow), (_, full) = milliseconds(convolution(CHANNELS)), milliseconds(convolution(1))
summed, fast = milliseconds(shifted)
slow_back, fast_back = (milliseconds(by_kernel(f))[1] for f in (convolution(CHANNELS), shifted))
print("equal:", bool(np.allclose(depthwise, summed, atol=1e-3)))
print(f"forward: depthwise {slow:.1f} ms, full {full:.1f} ms, shifted copies {fast:.1f} ms")
print(f"gradient by the kernel: depthwise {slow_back:.1f} ms, shifted copies {fast_back:.1f} ms")
assert np.allclose(depthwise, summed, atol=1e-3)
assert slow > full / 2 and slow > 10 * fast and slow_back > 10 * fast_back, "changed"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/program.py"
