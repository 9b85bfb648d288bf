"""Seconds of a clip against frames, resolution, batch, sampling steps and scenes.

    python benchmarks/scaling.py     # some minutes on two cores

C-ViViT at the paper's size encodes and decodes clips of growing frames, resolution and batch; the
other two are 11 frames, 64 px or one clip. Steps and scenes are those of guided samples and stories
of the released laptop model. Devices are simulated: FLOPs and bytes of one device in a train step
of 16 clips and 8 images, from the compiled program. Writes docs/scaling.png and
benchmarks/results/scaling_DEVICE.json.
"""

import json
import os
import subprocess
import sys

from absl import flags

from phenaki import cli
from phenaki.io import artifacts, outputs

REPEATS = flags.DEFINE_integer("repeats", 3, "timed calls per point, of which the median counts", 1)
DEVICES = flags.DEFINE_bool("devices", False, "print only the curve of devices, as JSON")
MODEL = flags.DEFINE_string("model", "checkpoints/laptop", "bundle that steps and scenes use")
FIGURE = flags.DEFINE_string("figure", "docs/scaling.png", "PNG to write")

SOURCE = "benchmarks/scaling.py"  # in the PNG: whose it is
FRAMES = (1, 3, 7, 11, 19, 27)
RESOLUTIONS = (32, 64, 96, 128)
BATCHES = (1, 2, 4, 8)
STEPS = (1, 4, 8, 16, 32, 48)
SCENES = (1, 2, 4, 8)
COUNTS = (1, 2, 4, 8)
PROMPT = "a red circle moves left"
SAMPLES = {"data.batch": 16, "data.image_batch": 8}


def main(argv):
    """Measures and draws every curve."""
    del argv
    outputs.admit_file("figure", FIGURE.value, lambda head: SOURCE.encode() in head)
    if DEVICES.value:
        print(json.dumps(devices()))
        return
    import jax
    import record

    curves = {
        "frames": [[n, tokenizer(frames=n)] for n in FRAMES],
        "thousand pixels of a frame": [[n * n / 1000, tokenizer(side=n)] for n in RESOLUTIONS],
        "clips of a batch": [[n, tokenizer(batch=n)] for n in BATCHES],
        **samples(),
    }
    for name, points in curves.items():
        print(f"{name}: " + ", ".join(f"{x}: {seconds:.3f} s" for x, seconds in points))
    parts = json.loads(
        subprocess.run(
            [sys.executable, __file__, "--devices"],
            env=os.environ
            | {
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={max(COUNTS)}",
            },
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    )
    for part in parts:
        print("{devices} devices: {gflop:.0f} GFLOP, {mebibytes:.0f} MiB each".format(**part))
    draw(curves, parts)
    record.write(
        f"benchmarks/results/scaling_{jax.default_backend()}.json",
        ("jax", "jaxlib", "flax"),
        curves=curves,
        devices=parts,
    )


def median(function, *arguments) -> float:
    """Median seconds of --repeats calls."""
    import timing

    return timing.median_seconds(REPEATS.value, function, *arguments)


def tokenizer(frames: int = 11, side: int = 64, batch: int = 1) -> float:
    """Seconds of encoding and decoding a batch with Table 6's network."""
    import jax
    import jax.numpy as jnp

    from configs import cvivit
    from phenaki.models import factory

    config = cvivit.get_config("mit")
    config.video.update(frames=max(frames, 3), height=side, width=side)
    config.dtype, config.unroll = "float32", 4
    model = factory.tokenizer(config)
    video = jnp.zeros((batch, frames, side, side, 3))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *video.shape[1:])))["params"]

    @jax.jit
    def there_and_back(params, video):
        tokens = model.apply({"params": params}, video, method="encode")
        return model.apply({"params": params}, tokens, method="decode")

    return median(there_and_back, params, video)


def samples() -> dict[str, list]:
    """Seconds of guided clips by sampling steps, and of stories by scenes."""
    from phenaki.pipeline import Phenaki
    from phenaki.sampling.windows import Scene

    model = Phenaki.load(MODEL.value)
    scene = Scene(PROMPT, model.spec.frames / model.spec.fps)
    return {
        "sampling steps": [
            [n, median(lambda n=n: model.generate([PROMPT], seed=0, steps=n))] for n in STEPS
        ],
        "scenes of a story": [
            [n, median(lambda n=n: model.story([scene] * n, seed=0))] for n in SCENES
        ],
    }


def devices() -> list[dict]:
    """FLOPs and bytes of one of several devices in a step of configs/maskgit.py:small."""
    import jax

    from configs import cvivit, maskgit
    from phenaki import sharding
    from phenaki.planning import compiled, programs
    from phenaki.train.maskgit import with_tokenizer

    config = maskgit.get_config("small")
    config.update_from_flattened_dict(SAMPLES)
    config = with_tokenizer(config, cvivit.get_config("small"), "")
    found = []
    for count in COUNTS:
        mesh = sharding.make_mesh(1, count, 1, devices=jax.devices()[:count])
        measured = compiled.measure(programs.workload(config).train_step(), mesh)
        found.append(
            dict(
                devices=count,
                gflop=measured["flops"] / 1e9,
                mebibytes=measured["memory"] / 2**20,
                exchanged=sum(c["bytes"] for c in measured["collectives"].values()) / 2**20,
            )
        )
    return found


def draw(curves, parts):
    """One plot per curve; the dashed line grows in proportion from the first point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    plots = figure.subplots(2, 3).flat
    for (name, points), plot in zip(curves.items(), plots, strict=False):
        x, y = zip(*points, strict=True)
        plot.plot(x, y, marker="o")
        plot.plot(x, [y[0] * n / x[0] for n in x], "--", color="grey", linewidth=1)
        plot.set(xlabel=name, ylabel="seconds", ylim=(0, 1.15 * max(y)), xlim=(0, 1.05 * max(x)))
        plot.grid(alpha=0.3)
    (plot,) = plots
    count = [part["devices"] for part in parts]
    for field, label in (("gflop", "FLOPs"), ("mebibytes", "memory")):
        plot.plot(count, [part[field] / parts[0][field] for part in parts], marker="o", label=label)
    plot.plot(count, [1 / n for n in count], "--", color="grey", linewidth=1, label="1/n")
    plot.set(xlabel="devices (simulated)", ylabel="of each, relative to one device", ylim=(0, 1.1))
    plot.legend(fontsize=8)
    plot.grid(alpha=0.3)
    with artifacts.atomic(FIGURE.value) as partial:
        figure.savefig(partial, dpi=100, format="png", metadata={"Source": SOURCE})
    print(FIGURE.value)


if __name__ == "__main__":
    cli.run(main)
