"""Samples videos from a trained model.

    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --prompt="a red circle moves left"
    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --scene="a red circle moves right@1.4" --scene="then a blue circle moves left@1.5"
    python scripts/sample.py --model=checkpoints/laptop --output=out \\
        --story=examples/stories/two_minutes.yaml

Every --prompt gives one video; --image starts them from a picture, --video goes on from a video.
Writes NAME.mp4, NAME.gif and a sheet of frames NAME.png.

All --scene together give one story, each for its seconds after the "@"; --story reads one from a
file (docs/stories.md). Writes story.mp4 with chapters, .srt, .png, .gif of a short one, drift.json
and drift.png, story_report.json, and every window to --windows: a story that was interrupted goes
on where it stopped, one that was changed is sampled anew from the change on. Options given here are
for what the file leaves open.
"""

import collections
import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from absl import flags

from phenaki import cli
from phenaki.errors import UserError
from phenaki.io.artifacts import write_json
from phenaki.progress import Progress

MODEL = flags.DEFINE_string(
    "model", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder for what is written", required=True)
PROMPT = flags.DEFINE_multi_string("prompt", [], "a video's text; may be given several times")
SCENE = flags.DEFINE_multi_string("scene", [], "TEXT@SECONDS, a scene of one story; several times")
STORY = flags.DEFINE_string("story", None, "a YAML file of scenes")
IMAGE = flags.DEFINE_string("image", None, "first frame of every video")
VIDEO = flags.DEFINE_string("video", None, "a video to go on from, one window per --prompt")
SEED = flags.DEFINE_integer("seed", 0, "same seed, same video", lower_bound=0)
FRAMES = flags.DEFINE_integer("frames", None, "1 for an image; default: the model's clip length")
STEPS = flags.DEFINE_integer("steps", None, "decoding steps; default: the model's", lower_bound=1)
GUIDANCE = flags.DEFINE_float(
    "guidance", None, "lambda; 0 is off, other tools' scale is 1 + lambda"
)
TEMPERATURE = flags.DEFINE_float(
    "choice_temperature", None, "noise on the choice of codes", lower_bound=0
)
NEGATIVE = flags.DEFINE_string("negative", None, "a text that guidance leads away from")
PRESET = flags.DEFINE_string("preset", None, "named options of the model's config")
CRITIC = flags.DEFINE_string("critic", None, "the --workdir of train_critic.py; of --prompt only")
SCALE = flags.DEFINE_integer("scale", None, "enlarge pixels; default: to about 256", lower_bound=1)
REROLL = flags.DEFINE_integer(
    "reroll", None, "a new seed for this scene of the story, 1 for the first", lower_bound=1
)
PREVIEW = flags.DEFINE_bool("preview", False, "the story in few steps, to OUTPUT/preview")
WINDOWS = flags.DEFINE_string("windows", None, "folder of kept windows; default: OUTPUT/windows")
REANCHOR = flags.DEFINE_bool("reanchor", False, "hold each scene to its first window's colours")
BEST_OF = flags.DEFINE_integer("best_of", 1, "samples per window; one is kept", lower_bound=1)
SCORE = flags.DEFINE_enum(
    "score", "seam", ["seam", "detector"], "what --best_of goes by: the smallest change across the "
    "seam, or moving shapes as asked for"
)  # fmt: skip
WEIGHTS = flags.DEFINE_string(
    "weights", "weights", "directory of vgg16.npz and lpips_vgg.npz, without which LPIPS is a proxy"
)

PREVIEW_STEPS = 6
GIF_FRAMES = 240  # of longer stories none is written: it would need them all in memory


def main(argv):
    """Samples and writes."""
    del argv
    if not PROMPT.value and not SCENE.value and not STORY.value:
        raise UserError("nothing to sample: give --prompt or --scene.")
    if SCENE.value and STORY.value:
        raise UserError("--scene and --story: give one of them.")
    if REROLL.value and not STORY.value:
        raise UserError(f"--reroll={REROLL.value}: is a scene of a --story.")
    if CRITIC.value and not PROMPT.value:
        raise UserError(f"--critic={CRITIC.value}: is for --prompt; a story takes none.")
    scenes = [_scene(text) for text in SCENE.value]
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)

    from phenaki.pipeline import Phenaki

    model = Phenaki.load(MODEL.value)
    if PROMPT.value:
        _say_cut(model, PROMPT.value)
        critic = {"critic": model.load_critic(CRITIC.value)} if CRITIC.value else {}
        videos = _prompts(model, _options() | critic)
        names = [f"sample_{i}" for i in range(len(videos))]
        _write(output, names, videos, PROMPT.value, model.spec.fps)
    if scenes or STORY.value:
        _story(model, _timeline(model, scenes), output)


def _say(sentence):
    print(f"note: {sentence}", file=sys.stderr)


def _options():
    given = dict(
        steps=STEPS.value,
        guidance=GUIDANCE.value,
        choice_temperature=TEMPERATURE.value,
        negative=NEGATIVE.value,
        preset=PRESET.value,
    )
    return {name: value for name, value in given.items() if value is not None}


def _say_cut(model, prompts):
    for prompt, cut in zip(prompts, _is_cut(model)(prompts), strict=True):
        if cut:
            _say(f"the text encoder cuts the end of {prompt!r}.")


def _is_cut(model):
    from phenaki.models import factory

    if not model.config.text:
        return lambda prompts: [False] * len(prompts)
    return factory.vocabulary(model.config).is_cut


def _scene(text):
    prompt, _, seconds = text.rpartition("@")
    try:
        return prompt.strip(), float(seconds)
    except ValueError:
        raise UserError(
            f"--scene={text!r}: must be TEXT@SECONDS, such as 'a red circle moves left@1.5'."
        ) from None


def _prompts(model, options):
    size = (model.spec.height, model.spec.width)
    prompts = PROMPT.value
    if VIDEO.value:
        known = np.repeat(_last_frames(VIDEO.value, model.spec)[None], len(prompts), 0)
        return model.extend(known, prompts, seed=SEED.value, **options)
    if IMAGE.value:
        from phenaki.io import images as image_files

        image = image_files.read_frame(IMAGE.value, size, _say)
        images = np.repeat(image[None], len(prompts), 0)
        return model.animate(images, prompts, seed=SEED.value, **options)
    return model.generate(prompts, seed=SEED.value, frames=FRAMES.value, **options)


def _last_frames(path, spec):
    """The last frames of a file, at most a clip of them: float32 [f h w 3] in [0, 1]."""
    from phenaki.data.prepare import video
    from phenaki.io.images import UnreadableMedia

    single = video.clips(path, frames=1, fps=spec.fps, height=spec.height, width=spec.width)
    try:
        last = collections.deque(single, maxlen=spec.frames)
    except UnreadableMedia as error:
        raise UserError(f"--video={path}: {error.reason}; give another file.") from None
    return np.concatenate([clip.video for clip in last]).astype(np.float32) / 255


def _timeline(model, scenes):
    """The story of --story or --scene, with the options of the command line where it has none."""
    from phenaki.sampling import options
    from phenaki.stories import storyboard

    context = model.config.sample.context
    if STORY.value:
        story = storyboard.read(STORY.value, model.spec, context, SEED.value)
    else:
        shots = [storyboard.Shot(prompt, seconds, seed=SEED.value) for prompt, seconds in scenes]
        story = storyboard.Timeline(shots, context)
    few = {"steps": PREVIEW_STEPS} if PREVIEW.value else {}
    shots = []
    for number, shot in enumerate(story.shots, 1):
        shot = dataclasses.replace(shot, sampler=_options() | dict(shot.sampler) | few)
        try:
            options.resolve(model.config, **shot.sampler)
        except UserError as error:
            raise UserError(f"scene {number}: {error}") from None
        shots.append(shot)
    return dataclasses.replace(story, shots=_rerolled(shots))


def _rerolled(shots):
    """`shots` with the seeds that --reroll has drawn in this and earlier calls."""
    from phenaki.stories.storyboard import reroll

    path = Path(OUTPUT.value) / "rerolls.json"
    rerolls = json.loads(path.read_text()) if path.is_file() else {}
    if REROLL.value:
        if REROLL.value > len(shots):
            raise UserError(f"--reroll={REROLL.value}: the story has {len(shots)} scenes.")
        rerolls[str(REROLL.value)] = rerolls.get(str(REROLL.value), 0) + 1
        write_json(path, rerolls)
    counts = {int(number): count for number, count in rerolls.items()}
    return reroll(shots, {n: count for n, count in counts.items() if n <= len(shots)})


def _story(model, timeline, output):
    from phenaki.io import images, media
    from phenaki.sampling.windows import windows
    from phenaki.stories import drift, generate, render
    from phenaki.stories.storyboard import notices

    spec = model.spec
    plan = windows(timeline.shots, spec, timeline.context)
    for sentence in notices(timeline.shots, spec, timeline.context, _is_cut(model)):
        _say(sentence)
    kept = generate.WindowCache(WINDOWS.value or output / "windows")
    output = output / "preview" if PREVIEW.value else output
    output.mkdir(exist_ok=True)
    distance = drift.distance(WEIGHTS.value)
    aids = generate.DriftOptions(
        REANCHOR.value, BEST_OF.value, _score(model, distance), SCORE.value
    )

    def read_image(path):
        return images.read_frame(path, (spec.height, spec.width), _say)

    scale = SCALE.value or media.scale_to_see(spec.height, spec.width)
    report = render.produce(
        model,
        timeline,
        output,
        kept,
        read_image=read_image,
        distance=distance,
        progress=lambda total: Progress(total, "windows"),
        aids=aids,
        scale=scale,
    )
    if plan[-1].stop <= GIF_FRAMES:
        told = generate.tell(model, timeline.shots, timeline.context, kept, read_image, aids)
        video = np.concatenate([part.frames for part in told])
        media.write_gif(output / "story.gif", video, spec.fps, scale)
    _print(report, output)


def _score(model, distance):
    """What --best_of keeps the highest of."""
    if SCORE.value == "seam":

        def score(before, frames, prompt):
            del prompt
            return 0.0 if before is None else -float(distance[0](before[-1:], frames[:1])[0])

        return score
    from phenaki.data import batches
    from phenaki.stories import prompt_check

    if model.config.data.source != "moving_shapes":
        raise UserError("--score=detector: reads moving shapes only; use --score=seam.")
    world = batches.world(model.config)

    def obeyed(before, frames, prompt):
        last = None if before is None else before[-1]
        right = prompt_check.window(world, frames, last, prompt)
        return 0.0 if right is None else float(sum(right.values()))

    return obeyed


def _print(report, output):
    seconds = report["seconds_of_video"]
    print(
        f"{output}/story.mp4: {report['frames']} frames, {seconds:.1f} s; "
        f"{report['windows_made']} of {report['windows']} windows sampled in "
        f"{report['seconds']:.0f} s"
    )
    if report["seconds_per_second_of_video"]:
        print(f"{report['seconds_per_second_of_video']:.2f} s per second of video")
    memory = report["peak_mb"]
    print(
        f"peak memory: {memory['first']:.0f} MB after the first window, {memory['tenth']:.0f} "
        f"after the tenth, {memory['last']:.0f} after the last"
    )
    if "windows_right" in report:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in report["windows_right"].items())
        print(f"windows that the detector finds right: {shares}")


def _write(output, names, videos, prompts, fps):
    from phenaki.io import media

    for name, video, prompt in zip(names, videos, itertools.cycle(prompts)):
        scale = SCALE.value or media.scale_to_see(*video.shape[1:3])
        if len(video) > 1:
            media.write_mp4(output / f"{name}.mp4", video, fps, scale)
            media.write_gif(output / f"{name}.gif", video, fps, scale)
        media.write_png(output / f"{name}.png", media.sheet([video], [prompt]))
        print(f"{output}/{name}: {len(video)} frames, {prompt}")


if __name__ == "__main__":
    cli.run(main)
