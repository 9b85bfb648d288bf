"""All that is to be measured on a GPU, in one run of at most eight minutes on an H100 or H200.

    python benchmarks/accelerator.py                          # what is not in the results yet
    python benchmarks/accelerator.py --parts=kernels,maskgit  # these, again

Parts: the ceilings of the chip (matmul), attention kernels compared with the plain form (kernels),
train steps of the 1.8B MaskGIT and of C-ViViT's full objective at the largest batch that fits
(maskgit, cvivit), a guided clip and a story's window (sample), frames per second of the tokenizer
(tokenizer), and of phenaki-pytorch's where it is installed (peer).

Every part is written to the results as soon as it is measured, with hardware and versions, so that
a run that was stopped resumes. A part that fails is reported, and does not stop the others. Inputs
and weights are random. Needs neither TensorFlow nor seqio. --size=tiny rehearses on any machine.
"""

import json
import os
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

# Before JAX is imported: the largest batch is to be found in nearly all of the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")

import accelerator_parts
import jax
import record
from absl import flags

from phenaki import cli
from phenaki.errors import UserError, one_of

PARTS = flags.DEFINE_list("parts", None, "parts to measure again; default: those without a result")
SIZE = flags.DEFINE_enum("size", "paper", list(accelerator_parts.SIZES), "sizes of everything")
OUTPUT = flags.DEFINE_string(
    "output", None, "default: benchmarks/results/accelerator_DEVICE_SIZE.json"
)

PACKAGES = (
    "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13", "flax", "optax", "numpy", "torch", "phenaki-pytorch",
)  # fmt: skip


def main(argv):
    """Measures the parts one after another; exit code 1 if one failed."""
    del argv
    record.admit(OUTPUT.value)
    names = PARTS.value or list(accelerator_parts.PARTS)
    for name in names:
        one_of("--parts", name, accelerator_parts.PARTS)
    device = jax.devices()[0]
    kind = device.device_kind.replace(" ", "_")
    path = Path(OUTPUT.value or f"benchmarks/results/accelerator_{kind}_{SIZE.value}.json")
    setting = dict(
        size=SIZE.value,
        device=device.device_kind,
        platform=device.client.platform_version,
        memory=(device.memory_stats() or {}).get("bytes_limit"),
    )
    versions = tuple(name for name in PACKAGES if installed(name))
    parts = earlier(path, setting | {name: metadata.version(name) for name in versions})
    sizes = accelerator_parts.SIZES[SIZE.value]
    for name in names:
        if PARTS.value is None and "error" not in parts.get(name, {"error": ""}):
            print(f"{name}: has a result")
            continue
        start = time.perf_counter()
        try:
            result = accelerator_parts.PARTS[name](sizes)
        except Exception as error:  # whatever it is, the others are measured
            traceback.print_exc()
            result = dict(error=f"{type(error).__name__}: {error}")
        parts[name] = dict(took=round(time.perf_counter() - start, 1), **result)
        show(name, parts[name])
        record.write(path, versions, **setting, parts=parts)
        jax.clear_caches()  # frees the device's memory for the next part
    return int(any("error" in parts[name] for name in names))


def installed(name: str) -> bool:
    """Whether a package is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def earlier(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """The parts in the results at `path`, if there are any.

    Raises:
        UserError: they are of another machine, size or version.
    """
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    other = [name for name, value in setting.items() if stored.get(name) != value]
    if other:
        raise UserError(
            f"{path}: results of another {', '.join(other)}. Move them, or name another --output."
        )
    return stored["parts"]


def show(name: str, result: dict[str, Any]) -> None:
    """Prints a part's figures, one a line."""
    print(f"{name} ({result['took']} s)")
    for key, value in result.items():
        rows = value if isinstance(value, list) else [value]
        for row in rows if key != "took" else []:
            print(f"  {key}: {row:.4g}" if isinstance(row, float) else f"  {key}: {row}")
    sys.stdout.flush()


if __name__ == "__main__":
    cli.run(main)
