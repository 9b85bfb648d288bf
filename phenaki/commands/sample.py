"""Samples videos from a trained model.

    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --prompt="a red circle moves left"
    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --scene="a red circle moves right@1.4" --scene="then a blue circle moves left@1.5"
    python scripts/sample.py --model=checkpoints/laptop --output=out \\
        --story=examples/stories/two_minutes.yaml

Every --prompt gives one video; --image is the first frame of all of them, --video is continued by
one window per --prompt and kept in front of it. Writes NAME.mp4, NAME.gif of a short one and a
sheet of frames NAME.png; an image (--frames=1) is NAME.png with NAME_sheet.png. Samples of an
earlier call in OUTPUT are removed.

All --scene together give one story, each for its seconds after the "@"; --story reads one from a
file (docs/stories.md). Writes story.mp4 with chapters, .srt, .png, .gif of a short one, drift.json
and drift.png, story_report.json, and every window to --windows: a story that was interrupted
resumes, one that was changed is sampled again from the change on. Options of the file go before
those of the command line.
"""

import collections
import dataclasses
import sys

import numpy as np
from absl import flags

from phenaki import cli
from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.clean_text import clean
from phenaki.progress import Progress
from phenaki.sampling import flag_rules, orders

flags.declare_key_flag(cli.NO_VERIFY.name)
MODEL = flags.DEFINE_string(
    "model", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder for what is written", required=True)
PROMPT = flags.DEFINE_multi_string("prompt", [], "a video's text; may be given several times")
SCENE = flags.DEFINE_multi_string("scene", [], "TEXT@SECONDS, a scene of one story; several times")
STORY = flags.DEFINE_string("story", None, "a YAML file of scenes")
IMAGE = flags.DEFINE_string("image", None, "first frame of every video")
VIDEO = flags.DEFINE_string("video", None, "a video to continue, by one window per --prompt")
SEED = flags.DEFINE_integer(
    "seed", 0, "same seed, same video", lower_bound=0, upper_bound=2**64 - 1
)
FRAMES = flags.DEFINE_integer("frames", None, "1 for an image; default: the model's clip length")
STEPS = flags.DEFINE_integer("steps", None, "decoding steps; default: the model's", lower_bound=1)
GUIDANCE = flags.DEFINE_float(
    "guidance", None, "lambda; 0 is off, other tools' scale is 1 + lambda"
)
TEMPERATURE = flags.DEFINE_float(
    "choice_temperature", None, "noise on the choice of tokens", lower_bound=0
)
LIMIT = flags.DEFINE_float(
    "guidance_limit", None, "most that guidance adds to a log-probability, such as 2; 0: no bound",
    lower_bound=0,
)  # fmt: skip
GUIDED_CODES = flags.DEFINE_float(
    "guidance_min_p", None, "guide codes this likely only, relative to the likeliest, such as 0.1",
    lower_bound=0, upper_bound=1,
)  # fmt: skip
INTERVAL = flags.DEFINE_list(
    "guidance_interval", None, "the fractions of the steps between which samples are guided: 0,0.25"
)
MIN_P = flags.DEFINE_float(
    "min_p", None, "sample codes this likely only, relative to the likeliest", lower_bound=0,
    upper_bound=1,
)  # fmt: skip
ORDER = flags.DEFINE_enum(
    "order", None, orders.NAMES, "which tokens are kept first: the most confident, or a fixed order"
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
VIDEO_FRAMES = 2400  # of --video that are kept, five minutes at 8 per second


def main(argv):
    """Samples and writes."""
    del argv
    for sentence in flag_rules.check(_given()):
        _note(sentence)
    scenes = [_scene(text) for text in SCENE.value]
    output = paths.path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)

    from phenaki.io import sample_files
    from phenaki.pipeline import Phenaki

    model = Phenaki.load(MODEL.value)
    if PROMPT.value:
        critic = {"critic": model.load_critic(CRITIC.value)} if CRITIC.value else {}
        prompts = [clean(prompt) for prompt in PROMPT.value]
        videos = _prompts(model, prompts, _options() | critic)
        names = sample_files.write(output, videos, prompts, model.spec.fps, SCALE.value)
        for name, video, prompt in zip(names, videos, prompts, strict=True):
            print(f"{output}/{name}: {len(video)} frames, {prompt or '(no text)'}")
    if scenes or STORY.value:
        storyboard, plan = _storyboard(model, scenes)
        _story(model, storyboard, plan, output)


def _given():
    """The flags of the command line that are switched on, with their values."""
    found = {name: flags.FLAGS[name].value for name in flags.FLAGS if flags.FLAGS[name].present}
    off = {"best_of": 1}
    return {
        name: value
        for name, value in found.items()
        if value is not None and value is not False and value != off.get(name, [])
    }


def _note(sentence):
    print(f"note: {sentence}", file=sys.stderr)


def _options():
    given = dict(
        steps=STEPS.value,
        guidance=GUIDANCE.value,
        choice_temperature=TEMPERATURE.value,
        guidance_limit=LIMIT.value,
        guidance_min_p=GUIDED_CODES.value,
        guidance_interval=_interval(),
        min_p=MIN_P.value,
        order=ORDER.value,
        negative=NEGATIVE.value,
        preset=PRESET.value,
    )
    return {name: value for name, value in given.items() if value is not None}


def _interval():
    """The numbers of --guidance_interval, which the options check; None without it."""
    if INTERVAL.value is None:
        return None
    try:
        return [float(end) for end in INTERVAL.value]
    except ValueError:
        given = ",".join(INTERVAL.value)
        raise UserError(
            f"--guidance_interval={given} must be two numbers, such as 0,0.25."
        ) from None


def _is_cut(model):
    if model.vocabulary is None:
        return lambda prompts: [False] * len(prompts)
    return model.vocabulary.is_cut


def _scene(text):
    prompt, _, seconds = text.rpartition("@")
    try:
        return clean(prompt), float(seconds)
    except ValueError:
        raise UserError(
            f"--scene={text!r}: must be TEXT@SECONDS, such as 'a red circle moves left@1.5'."
        ) from None


def _prompts(model, prompts, options):
    """One video [f h w 3] per prompt."""
    from phenaki.sampling.options import resolve
    from phenaki.stories import notes

    chosen = resolve(model.defaults, **options)
    model.check_texts(prompts, chosen)
    for sentence in [
        *notes.of_texts(prompts, chosen, _is_cut(model)),
        *notes.of_options(chosen, list(options), model.has_text),
        *_overridden_preset(model),
    ]:
        _note(sentence)
    call = dict(seed=SEED.value, **options)
    if VIDEO.value:
        given = _frames(VIDEO.value, model.spec)
        known = given[-model.spec.frames :].astype(np.float32) / 255
        videos = model.extend(np.repeat(known[None], len(prompts), 0), prompts, **call)
        added = np.rint(videos[:, len(known) :] * 255).astype(np.uint8)
        return [np.concatenate([given, frames]) for frames in added]
    if IMAGE.value:
        from phenaki.io import images as image_files

        with paths.local(IMAGE.value) as file:
            image = image_files.read_frame(file, (model.spec.height, model.spec.width), _note)
        return model.animate(np.repeat(image[None], len(prompts), 0), prompts, **call)
    return model.generate(prompts, frames=FRAMES.value, **call)


def _overridden_preset(model):
    """A sentence if other flags override all options of --preset."""
    preset = model.defaults.presets.get(PRESET.value, {})
    if PRESET.value and preset.keys() <= _options().keys():
        return [f"--preset={PRESET.value} has no effect: other flags give all of its options."]
    return []


def _frames(path, spec):
    """The frames of a video file, at most the last `VIDEO_FRAMES`: uint8 [f h w 3]."""
    from phenaki.data.prepare import video
    from phenaki.io.images import UnreadableMedia

    last: collections.deque[video.Clip] = collections.deque(maxlen=VIDEO_FRAMES)
    count = 0
    try:
        shape: dict = dict(height=spec.height, width=spec.width)
        with paths.local(path) as file:
            for clip in video.clips(file, frames=1, fps=spec.fps, **shape):
                last.append(clip)
                count += 1
    except UnreadableMedia as error:
        raise UserError(f"--video={path}: {error.reason}; give another file.") from None
    size = (spec.height, spec.width)
    if last[-1].source_size != size:
        height, width = last[-1].source_size
        _note(f"{path}: {width}x{height} px resized and center-cropped to {size[1]}x{size[0]}.")
    if count > len(last):
        _note(f"{path}: the last {len(last)} of its {count} frames are kept.")
    return np.concatenate([clip.video for clip in last])


def _storyboard(model, scenes):
    """The story of --story or --scene and its windows; its options go before those of flags."""
    from phenaki.sampling.options import resolve
    from phenaki.sampling.windows import windows
    from phenaki.stories import notes, storyboard

    if STORY.value:
        story = storyboard.read(STORY.value, model.spec, model.context, SEED.value)
    else:
        shots = [storyboard.Shot(prompt, seconds, seed=SEED.value) for prompt, seconds in scenes]
        story = storyboard.Storyboard(shots, model.context)
    plan = windows(story.shots, model.spec, story.context)
    shots, options = [], []
    for number, shot in enumerate(story.shots, 1):
        shot = dataclasses.replace(shot, sampler=_options() | dict(shot.sampler))
        try:
            if PREVIEW.value and resolve(model.defaults, **shot.sampler).steps > PREVIEW_STEPS:
                shot = dataclasses.replace(shot, sampler={**shot.sampler, "steps": PREVIEW_STEPS})
            options.append(resolve(model.defaults, **shot.sampler))
            model.check_texts([shot.prompt], options[-1])
        except UserError as error:
            raise UserError(f"scene {number}: {error}") from None
        shots.append(shot)
    shots = _rerolled(story.shots, shots)
    for sentence in [
        *_overridden(model, story),
        *notes.of_story(shots, plan, options, model.spec.fps, _is_cut(model), model.has_text),
    ]:
        _note(sentence)
    return dataclasses.replace(story, shots=shots), plan


def _overridden(model, story):
    """A sentence for every flag whose option all scenes of the `story` set themselves."""
    names = [name for name in _options() if all(name in shot.sampler for shot in story.shots)]
    names += ["seed"] if story.own_seeds and flags.FLAGS["seed"].present else []
    found = [f"--{name} has no effect: every scene of the story sets {name}." for name in names]
    return found + _overridden_preset(model)


def _rerolled(own, shots):
    """`shots` with the seeds of every --reroll of this and earlier calls; `own` are the file's."""
    from phenaki.stories import rerolls

    path = paths.path(OUTPUT.value) / "rerolls.json"
    if REROLL.value:
        rerolls.record(path, own, REROLL.value)
    for sentence in rerolls.notes(path, own):
        _note(sentence)
    return rerolls.reroll(shots, rerolls.read(path))


def _story(model, storyboard, plan, output):
    from phenaki.io import images, media, sample_files
    from phenaki.stories import drift, generate, render

    spec = model.spec
    cache = generate.WindowCache(WINDOWS.value or output / "windows")
    output = output / "preview" if PREVIEW.value else output
    output.mkdir(parents=True, exist_ok=True)
    distance, world = drift.distance(WEIGHTS.value), _world(model)
    options = generate.DriftOptions(
        match_colours=REANCHOR.value,
        candidates=BEST_OF.value,
        score=_score(world, distance),
        score_name=SCORE.value,
    )

    def read_image(path):
        with paths.local(path) as file:
            return images.read_frame(file, (spec.height, spec.width), _note)

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
    (output / "story.gif").unlink(missing_ok=True)  # that of an earlier call
    if plan[-1].stop <= sample_files.GIF_FRAMES:
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
