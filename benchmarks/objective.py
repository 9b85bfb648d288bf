"""Cost of each term of equation 2: seconds of the train step with all terms, and without each.

    python benchmarks/objective.py --config=configs/cvivit.py:small --config.loss.adversarial=0.1 \\
        --config.loss.perceptual=0.1 --config.loss.video_perceptual=1.0 \\
        --config.features.weights=random

Prints a table and writes benchmarks/results/objective_DEVICE.json. Seconds do not depend on the
weights of the feature networks.
"""

import statistics
import sys
import time

import jax
import record
from absl import flags
from ml_collections import ConfigDict, config_flags

from phenaki import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "of stage 1")
flags.mark_flag_as_required("config")
REPEATS = flags.DEFINE_integer("repeats", 5, "timed steps; the median counts", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "default: benchmarks/results/objective_DEVICE.json")
TERMS = ("adversarial", "perceptual", "video_perceptual")


def main(argv):
    """Times the whole step and one step less each term."""
    del argv
    record.admit(OUTPUT.value)
    config = CONFIG.value
    terms = [name for name in TERMS if config.loss[name]]

    def timed(title, *left_out):
        less = ConfigDict(config.to_dict())
        less.loss.update(dict.fromkeys(left_out, 0.0))
        seconds = seconds_per_step(less)
        print(f"{title}: {seconds:.3f} s a step", file=sys.stderr, flush=True)
        return seconds

    whole = timed("the whole step")
    without = {name: timed(f"without {name}", name) for name in terms}
    rest = timed("reconstruction and codebook alone", *terms)
    print(f"{'':30} {'seconds':>9} {'of the step':>12}")
    print(f"{'the whole step':30} {whole:9.3f} {1:12.0%}")
    for name, seconds in without.items():
        print(f"{name:30} {whole - seconds:9.3f} {(whole - seconds) / whole:12.0%}")
    print(f"{'reconstruction and codebook':30} {rest:9.3f} {rest / whole:12.0%}")
    record.write(
        OUTPUT.value or f"benchmarks/results/objective_{jax.default_backend()}.json",
        ("jax", "jaxlib", "flax"),
        device=jax.devices()[0].device_kind,
        batch=config.data.batch,
        video=config.video.to_dict(),
        loss=config.loss.to_dict(),
        seconds=whole,
        seconds_without=without,
        seconds_plain=rest,
    )


def seconds_per_step(config) -> float:
    """The median over `--repeats` steps on noise, after the first."""
    import numpy as np

    from phenaki.models import factory
    from phenaki.train import tokenizer

    stage, spec = tokenizer.make_stage(config), factory.video_spec(config)
    state = jax.jit(stage.init)(jax.random.key(0))
    shape = (config.data.batch, spec.frames, spec.height, spec.width, 3)
    video = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    step = jax.jit(stage.step, donate_argnums=0)
    times = []
    for _ in range(REPEATS.value + 1):
        start = time.perf_counter()
        state, metrics = step(state, stage.frozen, {"video": {"video": video}}, jax.random.key(1))
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    cli.run(main)
