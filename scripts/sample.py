"""Samples videos from a trained model.

    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --prompt="a red circle moves left"
    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --scene="a red circle moves right@1.4" --scene="then a blue circle moves left@1.5"

Every --prompt gives one video; --image starts them from a picture, --video goes on from a video.
All --scene together give one story, each for its seconds after the "@". Writes NAME.mp4, NAME.gif
and a sheet of frames NAME.png.
"""

import collections
import itertools
from pathlib import Path

import numpy as np
from absl import flags

from phenaki import cli
from phenaki.errors import UserError

MODEL = flags.DEFINE_string(
    "model", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder for what is written", required=True)
PROMPT = flags.DEFINE_multi_string("prompt", [], "a video's text; may be given several times")
SCENE = flags.DEFINE_multi_string("scene", [], "TEXT@SECONDS, a scene of one story; several times")
IMAGE = flags.DEFINE_string("image", None, "first frame of every video")
VIDEO = flags.DEFINE_string("video", None, "a video to go on from, one window per --prompt")
SEED = flags.DEFINE_integer("seed", 0, "same seed, same video")
FRAMES = flags.DEFINE_integer("frames", None, "1 for an image; default: the model's clip length")
STEPS = flags.DEFINE_integer("steps", None, "decoding steps; default: the model's", lower_bound=1)
GUIDANCE = flags.DEFINE_float(
    "guidance", None, "lambda; 0 is off, other tools' scale is 1 + lambda"
)
TEMPERATURE = flags.DEFINE_float(
    "choice_temperature", None, "noise on the choice of codes", lower_bound=0
)
SCALE = flags.DEFINE_integer("scale", None, "enlarge pixels; default: to about 256", lower_bound=1)


def main(argv):
    """Samples and writes."""
    del argv
    if not PROMPT.value and not SCENE.value:
        raise UserError("nothing to sample: give --prompt or --scene.")
    scenes = [_scene(text) for text in SCENE.value]
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)

    from phenaki.pipeline import Phenaki

    model = Phenaki.load(MODEL.value)
    options = dict(steps=STEPS.value, guidance=GUIDANCE.value, choice_temperature=TEMPERATURE.value)
    if PROMPT.value:
        videos = _prompts(model, options)
        names = [f"sample_{i}" for i in range(len(videos))]
        _write(output, names, videos, PROMPT.value, model.spec.fps)
    if scenes:
        _story(model, scenes, output, options)


def _scene(text):
    from phenaki.story import Scene

    prompt, _, seconds = text.rpartition("@")
    try:
        return Scene(prompt.strip(), float(seconds))
    except ValueError:
        raise UserError(
            f"--scene={text!r}: must be TEXT@SECONDS, such as 'a red circle moves left@1.5'."
        ) from None


def _prompts(model, options):
    from phenaki import media

    size = (model.spec.height, model.spec.width)
    prompts = PROMPT.value
    if VIDEO.value:
        known = np.repeat(_last_frames(VIDEO.value, model.spec)[None], len(prompts), 0)
        return model.extend(known, prompts, seed=SEED.value, **options)
    if IMAGE.value:
        images = np.repeat(media.read_image(IMAGE.value, size)[None], len(prompts), 0)
        return model.animate(images, prompts, seed=SEED.value, **options)
    return model.generate(prompts, seed=SEED.value, frames=FRAMES.value, **options)


def _last_frames(path, spec):
    """The last frames of a file, at most a clip of them: float32 [f h w 3] in [0, 1]."""
    from phenaki.data import video

    single = video.clips(path, frames=1, fps=spec.fps, height=spec.height, width=spec.width)
    try:
        last = collections.deque(single, maxlen=spec.frames)
    except video.UnreadableMedia as error:
        raise UserError(f"--video={path}: {error.reason}; give another file.") from None
    return np.concatenate([clip.video for clip in last]).astype(np.float32) / 255


def _story(model, scenes, output, options):
    from phenaki import media
    from phenaki.story import windows

    plan = windows(scenes, model.spec, model.config.sample.context)
    parts = model.story_windows([scenes], seed=SEED.value, **options)
    scale = SCALE.value or media.scale_to_see(model.spec.height, model.spec.width)
    shown = []
    with (
        cli.Progress(len(plan), "windows") as progress,
        media.Mp4Writer(output / "story.mp4", model.spec.fps, scale) as writer,
    ):
        for part in parts:
            writer.append(part[0])
            shown.append(part[0])
            progress.update()
    video = np.concatenate(shown)
    media.write_gif(output / "story.gif", video, model.spec.fps, scale)
    rows = [
        (
            scene.prompt,
            np.concatenate([s for s, w in zip(shown, plan, strict=True) if w.scene == index]),
        )
        for index, scene in enumerate(scenes)
    ]
    media.write_png(output / "story.png", media.sheet([v for _, v in rows], [p for p, _ in rows]))
    print(f"{output}/story.mp4: {len(video)} frames, {len(video) / model.spec.fps:.1f} s")


def _write(output, names, videos, prompts, fps):
    from phenaki import media

    for name, video, prompt in zip(names, videos, itertools.cycle(prompts)):
        scale = SCALE.value or media.scale_to_see(*video.shape[1:3])
        if len(video) > 1:
            media.write_mp4(output / f"{name}.mp4", video, fps, scale)
            media.write_gif(output / f"{name}.gif", video, fps, scale)
        media.write_png(output / f"{name}.png", media.sheet([video], [prompt]))
        print(f"{output}/{name}: {len(video)} frames, {prompt}")


if __name__ == "__main__":
    cli.run(main)
