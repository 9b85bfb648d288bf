#!/usr/bin/env bash
# JAX's persistent compilation cache, filled once and copied: into a container's image, to a second VM.
# Guess: a key is made of program, options and versions, so that the copy serves as the original does.
# Seen: up to jax 0.10 every program is compiled anew, on CPUs and TPUs, too. A cache of XLA's own, for
# GPUs alone, lies inside the folder by default; its path is one of the compiler's options, and those
# are part of every key. With jax_persistent_cache_enable_xla_caches="none" the copy is hit.
# Why it matters: starts of pods and of serverless GPUs are minutes of compilation, and a cache in the
# image is the usual remedy; phenaki/io/compilation_cache.py sets the option.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/program.py" <<'PY'
import sys

import jax
import jax.numpy as jnp

folder, *caches = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
for value in caches:
    jax.config.update("jax_persistent_cache_enable_xla_caches", value)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.split("/")[-1]))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(f"{events.count('cache_hits')} hits, {events.count('cache_misses')} misses")
PY
export JAX_PLATFORMS=cpu
run() { "$folder/venv/bin/python" "$folder/program.py" "$@"; }
"$folder/venv/bin/pip" list 2>/dev/null | grep -E '^(jax|jaxlib) '
for option in "" none; do
  rm -rf "$folder/cache" "$folder/copy"
  first=$(run "$folder/cache" $option) second=$(run "$folder/cache" $option)
  cp -r "$folder/cache" "$folder/copy"
  copied=$(run "$folder/copy" $option)
  echo "xla_caches=${option:-default}: first $first; again $second; from the copy $copied"
  [[ $first == "0 hits"* && $second == *" 0 misses" ]] || { echo changed; exit 1; }
  if [ "$option" = none ]; then [[ $copied == "$second" ]]; else [[ $copied == "$first" ]]; fi ||
    { echo changed; exit 1; }
done
