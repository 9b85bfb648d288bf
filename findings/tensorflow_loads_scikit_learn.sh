#!/usr/bin/env bash
# `import tensorflow` beside an installed scikit-learn, in a program that reads records and nothing else.
# Guess: Keras is loaded when `tf.keras` is used, as its lazy loader says; scikit-learn is no part of it.
# Seen: the import ends with all of Keras 3, to register its optimisers, and Keras imports scikit-learn
# for its wrappers where that is installed: 1200 modules, three tenths of the import's processor time.
# TF_USE_LEGACY_KERAS=1 during the import, without the package tf_keras, leaves both out; unset again,
# `tf.keras` is Keras 3 all the same. Why it matters: input pipelines of JAX projects start so, once
# per process of a pod; phenaki/io/paths.py does this.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1 scikit-learn==1.9.1 numpy==2.4.6
cat > "$folder/program.py" <<'PY'
import os
import sys
import time
from importlib import metadata

as_former = sys.argv[1:] == ["former"]
if as_former:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
start = time.process_time()
import tensorflow as tf

seconds = time.process_time() - start
os.environ.pop("TF_USE_LEGACY_KERAS", None)
loaded = {name: name in sys.modules for name in ("keras.src.optimizers", "sklearn")}
versions = [f"{name} {metadata.version(name)}" for name in ("tensorflow", "keras", "scikit-learn")]
print(*versions, "as the former Keras" if as_former else "as it comes", sep=", ")
print(f"  {loaded}, {len(sys.modules)} modules, {seconds:.1f} CPU s; tf.keras is {tf.keras.__version__}")
assert set(loaded.values()) == {not as_former}, "changed"
assert tf.keras.__version__.startswith("3."), "changed"
PY
export TF_CPP_MIN_LOG_LEVEL=3
for way in as_it_comes former; do "$folder/venv/bin/python" "$folder/program.py" "$way" 2>/dev/null; done
