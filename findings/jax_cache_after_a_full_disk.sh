#!/usr/bin/env bash
# JAX's persistent compilation cache, after a disk was full once.
# Guess: once there is space again, the program is compiled a last time, stored, and then loaded.
# Seen: the file that was cut short stays, cannot be read, and is never replaced: every later start
# warns and compiles again, until somebody deletes the file by hand.
# Why it matters: a training job that filled its disk starts slowly from then on; phenaki's commands
# delete such a file when JAX reports it (phenaki/io/compilation_cache.py).
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then jax=0.12.0.1; else jax=0.10.2; fi
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==$jax" "jaxlib==$jax" numpy==2.4.6
cat > "$folder/program.py" <<'PY'
import collections
import warnings

import jax

counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rpartition("/")[2]]))
x = jax.numpy.zeros((64, 64))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    jax.jit(lambda x: jax.numpy.linalg.qr(x)[0].sum())(x).block_until_ready()
print("loaded", counts["cache_hits"], *{str(one.message).split(" entry")[0] for one in seen})
PY
run() {
  JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR="$folder/cache" \
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 "$folder/venv/bin/python" "$folder/program.py"
}
echo "jax $jax"
mkdir "$folder/cache"
echo "full disk:   $( (ulimit -f 1; run) 2>&1 | tail -1)"
later=()
for _ in 1 2 3; do
  later+=("$(run 2>&1 | tail -1)")
  echo "later start: ${later[-1]}"
done
[[ ${later[2]} == *"Error reading"* ]] || { echo "changed: the file is replaced or left out"; exit 1; }
