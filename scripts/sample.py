"""Samples videos from a trained model.

    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --prompt="a red circle moves left"
    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --scene="a red circle moves right@1.4" --scene="then a blue circle moves left@1.5"
    python scripts/sample.py --model=checkpoints/laptop --output=out \\
        --story=examples/stories/two_minutes.yaml

Every --prompt gives one video; --image is the first frame of all of them, --video is continued by
one window per --prompt. Writes NAME.mp4, NAME.gif and a sheet of frames NAME.png.

All --scene together give one story, each for its seconds after the "@"; --story reads one from a
file (docs/stories.md). Writes story.mp4 with chapters, .srt, .png, .gif of a short one, drift.json
and drift.png, story_report.json, and every window to --windows: a story that was interrupted
resumes, one that was changed is sampled again from the change on. Options of the file go before
those of the command line.
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
VIDEO = flags.DEFINE_string("video", None, "a video to continue, by one window per --prompt")
SEED = flags.DEFINE_integer("seed", 0, "same seed, same video", lower_bound=0)
FRAMES = flags.DEFINE_integer("frames", None, "1 for an image; default: the model's clip length")
STEPS = flags.DEFINE_integer("steps", None, "decoding steps; default: the model's", lower_bound=1)
GUIDANCE = flags.DEFINE_float(
    "guidance", None, "lambda; 0 is off, other tools' scale is 1 + lambda"
)
TEMPERATURE = flags.DEFINE_float(
    "choice_temperature", None, "noise on the choice of tokens", lower_bound=0
)
NEGATIVE = flags.DEFINE_string("negative", None, "a text that guidance leads away from")
PRESET = flags.DEFINE_string("preset", None, "named options of the model's config")
CRITIC = flags.DEFINE_string("critic", None, "the --workdir of train_critic.py; of --prompt only")
SCALE = flags.DEFINE_integer("scale", None, "enlarge pixels; default: to about 256", lower_bound=1)
REROLL = flags.DEFINE_integer(
    "reroll", None, "a new seed for this scene of the story, 1 for the first", lower_bound=1
)
PREVIEW = flags.DEFINE_bool("preview", False, "the story in a few steps, to OUTPUT/preview")
WINDOWS = flags.DEFINE_string(
    "windows", None, "folder of the window cache; default: OUTPUT/windows"
)
REANCHOR = flags.DEFINE_bool(
    "reanchor", False, "match each scene to the colours of its first window"
)
BEST_OF = flags.DEFINE_integer("best_of", 1, "samples per window; one is kept", lower_bound=1)
SCORE = flags.DEFINE_enum(
    "score", "seam", ["seam", "detector"], "what --best_of keeps: the smallest change across the "
    "seam, or the most attributes of moving shapes as prompted"
)  # fmt: skip
WEIGHTS = flags.DEFINE_string(
    "weights", "weights", "directory of vgg16.npz and lpips_vgg.npz, without which LPIPS is a proxy"
)

PREVIEW_STEPS = 6
GIF_FRAMES = 240  # longer stories have no gif, which needs all frames in memory


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
        _warn_of_cut(model, PROMPT.value)
        critic = {"critic": model.load_critic(CRITIC.value)} if CRITIC.value else {}
        videos = _prompts(model, _options() | critic)
        names = [f"sample_{i}" for i in range(len(videos))]
        _write(output, names, videos, PROMPT.value, model.spec.fps)
    if scenes or STORY.value:
        _story(model, _storyboard(model, scenes), output)


def _note(sentence):
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


def _warn_of_cut(model, prompts):
    for prompt, cut in zip(prompts, _is_cut(model)(prompts), strict=True):
        if cut:
            _note(f"the text encoder cuts the end of {prompt!r}.")


def _is_cut(model):
    if model.vocabulary is None:
        return lambda prompts: [False] * len(prompts)
    return model.vocabulary.is_cut


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

        image = image_files.read_frame(IMAGE.value, size, _note)
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


def _storyboard(model, scenes):
    """The story of --story or --scene; its own options go before those of the command line."""
    from phenaki.sampling import options
    from phenaki.stories import storyboard

    if STORY.value:
        story = storyboard.read(STORY.value, model.spec, model.context, SEED.value)
    else:
        shots = [storyboard.Shot(prompt, seconds, seed=SEED.value) for prompt, seconds in scenes]
        story = storyboard.Storyboard(shots, model.context)
    few = {"steps": PREVIEW_STEPS} if PREVIEW.value else {}
    shots = []
    for number, shot in enumerate(story.shots, 1):
        shot = dataclasses.replace(shot, sampler=_options() | dict(shot.sampler) | few)
        try:
            options.resolve(model.defaults, **shot.sampler)
        except UserError as error:
            raise UserError(f"scene {number}: {error}") from None
        shots.append(shot)
    return dataclasses.replace(story, shots=_rerolled(shots))


def _rerolled(shots):
    """`shots` with the seeds of every --reroll of this and earlier calls."""
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


def _story(model, storyboard, output):
    from phenaki.io import images, media
    from phenaki.sampling.windows import windows
    from phenaki.stories import drift, generate, render
    from phenaki.stories.storyboard import warnings_for

    spec = model.spec
    plan = windows(storyboard.shots, spec, storyboard.context)
    for sentence in warnings_for(storyboard.shots, spec, storyboard.context, _is_cut(model)):
        _note(sentence)
    cache = generate.WindowCache(WINDOWS.value or output / "windows")
    output = output / "preview" if PREVIEW.value else output
    output.mkdir(exist_ok=True)
    distance, world = drift.distance(WEIGHTS.value), _world(model)
    options = generate.DriftOptions(
        match_colours=REANCHOR.value,
        candidates=BEST_OF.value,
        score=_score(world, distance),
        score_name=SCORE.value,
    )

    def read_image(path):
        return images.read_frame(path, (spec.height, spec.width), _note)

    scale = SCALE.value or media.scale_to_see(spec.height, spec.width)
    report = render.render(
        model,
        storyboard,
        plan,
        output,
        cache,
        read_image=read_image,
        distance=distance,
        progress=lambda total: Progress(total, "windows"),
        world=world,
        options=options,
        scale=scale,
    )
    if plan[-1].stop <= GIF_FRAMES:
        parts = generate.generate_windows(model, storyboard, plan, cache, read_image, options)
        video = np.concatenate([part.frames for part in parts])
        media.write_gif(output / "story.gif", video, spec.fps, scale)
    _print(report, output)


def _world(model):
    """The world of a model of moving shapes; None for other models."""
    from phenaki.data import batches

    data = model.config.data
    return batches.world(model.config) if data.source == "moving_shapes" else None


def _score(world, distance):
    """What --best_of keeps the highest of."""
    if SCORE.value == "seam":

        def small_seam(context, frames, prompt):
            del prompt
            return 0.0 if context is None else -float(distance[0](context[-1:], frames[:1])[0])

        return small_seam
    from phenaki.stories import prompt_check

    if world is None:
        raise UserError("--score=detector: reads moving shapes only; use --score=seam.")

    def right_attributes(context, frames, prompt):
        before = None if context is None else context[-1]
        verdict = prompt_check.check_window(world, frames, before, prompt)
        return 0.0 if verdict is None else float(sum(verdict.values()))

    return right_attributes


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
        right = ", ".join(f"{name} {x:.1%}" for name, x in report["windows_right"].items())
        print(f"windows that the detector finds right: {right}")


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
