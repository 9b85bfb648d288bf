"""Samples videos from a trained model.

    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --prompt="a red circle moves left"
    python scripts/sample.py --model=runs/demo/maskgit --output=out \\
        --scene="a red circle moves right@1.4" --scene="then a blue circle moves left@1.5"
    python scripts/sample.py --model=checkpoints/laptop --output=out \\
        --story=examples/stories/two_minutes.yaml

Every --prompt gives one video, --unconditional one without text; --image is the first frame of all
of them, --video is continued by one window per --prompt and kept in front of it. Writes NAME.mp4,
NAME.gif of a short one, a sheet of frames NAME.png, and NAME.json, how it was made; an image
(--frames=1) is NAME.png with NAME_sheet.png. Numbers continue those of earlier calls in OUTPUT.

All --scene together give one story, each for its seconds after the "@"; --story reads one from a
file (docs/stories.md). Writes story.mp4 with chapters, .srt, .png, .gif of a short one, drift.json
and drift.png, story_report.json, and every window to --windows: a story that was interrupted
resumes, one that was changed is sampled again from the change on. Options of the file go before
those of the command line. A story in OUTPUT that was made otherwise is moved to take_1, take_2, ...
"""

from absl import flags

from phenaki.commands import prompts, sampling_flags, stories
from phenaki.errors import UserError
from phenaki.io import outputs
from phenaki.io.clean_text import clean
from phenaki.sampling import flag_rules

sampling_flags.define_model()
sampling_flags.define_options()
sampling_flags.define_story()
PROMPT = flags.DEFINE_multi_string("prompt", [], "a video's text; may be given several times")
UNCONDITIONAL = flags.DEFINE_bool(
    "unconditional", False, "one video without text; the default of a model that takes none"
)
IMAGE = flags.DEFINE_string("image", None, "first frame of every video")
VIDEO = flags.DEFINE_string("video", None, "a video to continue, by one window per --prompt")
FRAMES = flags.DEFINE_integer("frames", None, "1 for an image; default: the model's clip length")


def main(argv):
    """Samples and writes."""
    del argv
    given = sampling_flags.switched_on()
    unconditional = UNCONDITIONAL.value or _by_default(given)
    for sentence in flag_rules.check(given | ({"unconditional": True} if unconditional else {})):
        sampling_flags.note(sentence)
    scenes = stories.scenes()
    inputs = [
        *sampling_flags.inputs(),
        *stories.inputs(),
        ("image", IMAGE.value),
        ("video", VIDEO.value),
    ]
    with outputs.claimed("output", sampling_flags.value("output"), "samples", inputs) as claim:
        _sample(scenes, claim.directory, unconditional)


def _by_default(given):
    """Whether there is one sample without text: of a model that takes none, without a task."""
    from phenaki.io import checkpoint

    if any(task in given for task in flag_rules.TASKS):
        return False
    try:
        return not checkpoint.takes_text(sampling_flags.value("model"))
    except (UserError, OSError):
        return False  # what is missing is told where it is loaded


def _sample(scenes, output, unconditional):
    from phenaki.pipeline import Phenaki

    model = Phenaki.load(sampling_flags.value("model"))
    texts: list[str | None] = [clean(prompt) for prompt in PROMPT.value]
    if None in texts:
        sampling_flags.note("an empty --prompt is a sample without text, as of --unconditional.")
    texts += [None] * unconditional
    options = sampling_flags.options(model)
    if texts:
        videos = prompts.sample(
            model,
            texts,
            options,
            seed=sampling_flags.value("seed"),
            frames=FRAMES.value,
            image=IMAGE.value,
            video=VIDEO.value,
            context=sampling_flags.value("context"),
        )
        sampling_flags.write(model, output, videos, texts, options)
    if scenes or sampling_flags.value("story"):
        stories.tell(model, scenes, output, options)
