"""Prints the sizes of a config without training anything: parameters, codes, memory.

    python scripts/plan.py --config=configs/baselines.py:vit
    python scripts/plan.py --config=configs/maskgit.py:t2v --stage1=configs/cvivit.py:t2v

The training state is the parameters, their two moments and their average, all float32.
"""

from absl import flags
from ml_collections import config_flags

from phenaki import cli
from phenaki.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "of either stage")
flags.mark_flag_as_required("config")
STAGE1 = config_flags.DEFINE_config_file("stage1", None, "the tokenizer's, for stage 2")

STATE = 4 * 4  # bytes per parameter


def main(argv):
    """One line per figure."""
    del argv
    from phenaki import build, plan
    from phenaki.train import stages

    config = CONFIG.value
    if "model" in config:
        if STAGE1.value is None:
            raise UserError("--stage1 is required with a config of stage 2.")
        config = stages.with_tokenizer(config, STAGE1.value, "")
    spec = build.video_spec(config)
    grid = " x ".join(map(str, spec.grid()))
    print(f"clips          {spec.frames} x {spec.height} x {spec.width} at {spec.fps:g} fps")
    print(f"codes          {spec.tokens():,} = {grid}, of {config.tokenizer.codebook:,}")
    trained, frozen = plan.parameters(config)
    for name, size in trained.items():
        print(f"{name:14} {size:,} parameters, {_size(STATE * size)} of training state")
    for name, size in frozen.items():
        print(f"{name:14} {size:,} parameters, frozen")
    data = config.data
    print(f"a step         {data.batch} clips and {data.image_batch} stills")
    print(f"training       {config.train.steps:,} steps")


def _size(count):
    return f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"


if __name__ == "__main__":
    cli.run(main)
