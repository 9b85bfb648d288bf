"""Trains both stages on moving shapes, samples prompts and a story, and writes report.html.

    python scripts/demo.py [--workdir=runs/demo] [--stage1_steps=... --stage2_steps=...]

A second call resumes what was interrupted and reuses what is complete. `make demo` also sets up the
environment.
"""

import shlex
import shutil
import sys
import time

import numpy as np
from absl import flags

from phenaki.io import outputs, paths, shipped
from phenaki.io.artifacts import read_dict, write_json

WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "where everything is written")
RELEASED = flags.DEFINE_string(
    "released", "checkpoints/laptop", "a trained model to compare with; may be missing"
)
COUNT = flags.DEFINE_integer("count", 200, "unseen prompts per score", lower_bound=1)
SEED = flags.DEFINE_integer(
    "seed", 0, "of the data, the parameters and the samples", lower_bound=0, upper_bound=2**32 - 1
)
STAGE1 = flags.DEFINE_integer(
    "stage1_steps", None, "default: that of configs/cvivit.py:demo", lower_bound=1
)
STAGE2 = flags.DEFINE_integer(
    "stage2_steps", None, "default: that of configs/maskgit.py:demo", lower_bound=1
)

STORY = (
    ("a red circle moves right", 1.4),
    ("then a blue circle moves right", 0.75),
    ("then a blue square moves left", 0.75),
    ("then a blue square moves up", 0.75),
    ("then a yellow square moves down", 0.75),
)


def main(argv):
    """Runs what is missing: tokenizer, MaskGIT, scores, samples, report."""
    del argv
    workdir = paths.local_path("workdir", WORKDIR.value)
    with outputs.claimed("workdir", workdir, "demo", [("released", RELEASED.value)]):
        _demo(workdir)


def _demo(workdir):
    from phenaki.configs import cvivit, maskgit
    from phenaki.train import maskgit as stage2_training
    from phenaki.train import tokenizer as stage1_training

    stage1, stage2 = cvivit.get_config("demo"), maskgit.get_config("demo")
    for config, steps in ((stage1, STAGE1.value), (stage2, STAGE2.value)):
        config.seed = SEED.value
        if steps:
            config.train.steps = config.optim.decay = steps
            config.optim.warmup = min(config.optim.warmup, steps // 2)
    seconds = {}
    start = time.monotonic()
    _train("stage 1, the tokenizer", stage1, workdir / "cvivit", stage1_training.train)
    seconds["stage 1"] = time.monotonic() - start
    start = time.monotonic()
    _train(
        "stage 2, MaskGIT",
        stage2,
        workdir / "maskgit",
        lambda config, directory: stage2_training.train(config, workdir / "cvivit", directory),
    )
    seconds["stage 2"] = time.monotonic() - start
    _add_seconds(workdir, seconds)
    _report(workdir)


def _train(what, config, directory, train):
    from phenaki.io.checkpoint import steps_done

    latest = steps_done(directory)
    if latest >= config.train.steps:
        print(f"{what}: is complete in {directory} ({latest} steps)")
        return
    print(f"{what}: {config.train.steps} steps in {directory}")
    train(config, directory)


def _add_seconds(workdir, seconds):
    """Adds the training seconds of this call to those of earlier calls."""
    path = workdir / "seconds.json"
    before = read_dict(path) if path.is_file() else {}
    total = {name: round(before.get(name, 0) + value, 1) for name, value in seconds.items()}
    write_json(path, total)


def _report(workdir):
    from phenaki.io import media
    from phenaki.pipeline import Phenaki
    from phenaki.reports import demo
    from phenaki.sampling.windows import Scene

    models = {"trained just now": Phenaki.load(workdir / "maskgit")}
    released, known = shipped.find(RELEASED.value, shipped.MODELS), {}
    if (released / "bundle.json").is_file():
        models["released"] = Phenaki.load(released)
        if (released / "scores.json").is_file():  # measured when it was made
            known["released"] = read_dict(released / "scores.json")
    scenes = [Scene(*scene) for scene in STORY]
    page = demo.page(models, workdir, scenes, count=COUNT.value, seed=SEED.value, known=known)
    own = models["trained just now"]  # the page shows the released model's, too
    video, _ = own.story(scenes, seed=SEED.value)
    scale = media.scale_to_see(*video.shape[1:3])
    media.write_mp4(workdir / "story.mp4", video, own.spec.fps, scale)
    media.write_gif(workdir / "story.gif", video, own.spec.fps, scale)
    page.save(workdir / "report.html")
    print(
        f"{workdir}/report.html, {workdir}/story.mp4 and .gif ({len(np.asarray(video))} frames "
        "of the model just trained)"
    )
    # `make demo` has set up an environment that the shell does not know yet.
    activate = f"source {shlex.quote(sys.prefix)}/bin/activate && "
    model = shlex.quote(f"{workdir}/maskgit")
    print(
        f"next: {'' if shutil.which('phenaki') else activate}phenaki sample --model={model} "
        '--output=out --prompt="a red circle moves left"'
    )
