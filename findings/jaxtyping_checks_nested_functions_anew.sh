#!/usr/bin/env bash
# jaxtyping's import hook (and its pytest option) with beartype, on a function inside a function.
# Guess: annotations are compiled into checks once, when the module is imported.
# Seen: those of a nested function are compiled again at each call of the outer one: about two
# milliseconds, which the same function at module level does not cost.
# Why it matters: networks are traced in Python, layer by layer; in phenaki's tests three nested
# helpers of a dense layer took a sixteenth of all tracing. They are at module level now.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jaxtyping==0.3.11 beartype==0.22.9 numpy==2.4.6
cat > "$folder/layers.py" <<'PY'
import numpy as np
from jaxtyping import Float


def nested(x):
    def scaled(y: Float[np.ndarray, "a b"], by: float) -> Float[np.ndarray, "a b"]:
        return y * by

    return scaled(x, 2.0)


def scaled(y: Float[np.ndarray, "a b"], by: float) -> Float[np.ndarray, "a b"]:
    return y * by


def flat(x):
    return scaled(x, 2.0)
PY
cat > "$folder/checks.py" <<'PY'
import beartype

compiled = 0


def counted(function):
    global compiled
    compiled += 1
    return beartype.beartype(function)
PY
cat > "$folder/program.py" <<'PY'
import importlib.metadata
import time

import checks
import jaxtyping
import numpy as np

with jaxtyping.install_import_hook("layers", "checks.counted"):
    import layers

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("jaxtyping", "beartype")))
x, counts = np.ones((2, 3)), {}
for function in (layers.nested, layers.flat):
    function(x)
    before, start = checks.compiled, time.process_time()
    for _ in range(100):
        function(x)
    counts[function.__name__] = checks.compiled - before
    each = (time.process_time() - start) * 10
    print(f"{function.__name__}: {counts[function.__name__]} checks compiled by 100 calls, {each:.2f} CPU ms a call")
assert counts["nested"] >= 100 and counts["flat"] == 0, "changed"
PY
"$folder/venv/bin/python" "$folder/program.py"
