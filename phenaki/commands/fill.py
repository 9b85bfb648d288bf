"""Samples a part of a video anew, around the rest of it.

    phenaki fill --model=laptop --output=out --video=clip.mp4 --anew=5:8 --prompt="a red circle"
    phenaki fill --model=laptop --output=out --video=clip.mp4 --mask=mask.png --prompt="a circle"

The clip is the beginning of --video, as long as the model's clips. --anew are the frames to
sample, first:end from 0, by default all; --mask is an image, white where they are sampled, by
default everywhere. What is kept is returned as it is; how it becomes tokens is in docs/fill.md.
"""

import re
from typing import Any

import numpy as np
from absl import flags

from phenaki.commands import prompts, sampling_flags
from phenaki.errors import UserError
from phenaki.io import outputs, paths
from phenaki.io.clean_text import clean

sampling_flags.define_model()
sampling_flags.define_options()
PROMPT = flags.DEFINE_multi_string("prompt", [], "a video's text; may be given several times")
VIDEO = flags.DEFINE_string("video", None, "the video", required=True)
ANEW = flags.DEFINE_string("anew", None, "frames to sample, first:end; default: all")
MASK = flags.DEFINE_string("mask", None, "an image, white where to sample; default: everywhere")


def main(argv):
    """Samples and writes."""
    del argv
    if ANEW.value is None and MASK.value is None:
        raise UserError("--anew or --mask is required: which part of the video is sampled.")
    if sampling_flags.value("student"):
        raise UserError("--student: continues first frames only; leave it out of a fill.")
    inputs = [*sampling_flags.inputs(), ("video", VIDEO.value), ("mask", MASK.value)]
    with outputs.claimed("output", sampling_flags.value("output"), "samples", inputs) as claim:
        _fill(claim.directory)


def _fill(output):
    from phenaki.pipeline import Phenaki

    model = Phenaki.load(sampling_flags.value("model"))
    options = sampling_flags.options(model)
    texts: list[str | None] = [clean(prompt) for prompt in PROMPT.value] or [None]
    if PROMPT.value and None in texts:
        sampling_flags.note("an empty --prompt is a sample without text.")
    prompts.say(model, texts, options, continues=True)
    frames = prompts.read_video(VIDEO.value, model.spec, first=model.spec.frames)
    known = _known(model.spec, len(frames))
    clips = np.repeat(frames[None].astype(np.float32) / 255, len(texts), 0)
    seed = sampling_flags.value("seed")
    videos = model.fill(clips, known, texts, seed=seed, approximate=True, **options)
    sampling_flags.write(model, output, videos, texts, options)


def _known(spec: Any, frames: int) -> np.ndarray:
    """Which pixels [f h w] are kept."""
    first, end = _range(frames)
    anew = np.zeros((frames, spec.height, spec.width), bool)
    anew[first:end] = True
    if MASK.value:
        from phenaki.io import images

        with paths.local(MASK.value) as file:
            size = (spec.height, spec.width)
            anew &= images.read_frame(file, size, sampling_flags.note).mean(-1) >= 0.5
    if not anew.any():
        raise UserError(f"--mask={MASK.value}: is nowhere white; nothing would be sampled.")
    return ~anew


def _range(frames: int) -> tuple[int, int]:
    if ANEW.value is None:
        return 0, frames
    match = re.fullmatch(r"(\d*):(\d*)", ANEW.value)
    first, end = (int(match[1] or 0), int(match[2] or frames)) if match else (0, 0)
    if not 0 <= first < end <= frames:
        raise UserError(
            f"--anew={ANEW.value}: must be first:end of the clip's frames 0 to {frames}, such as "
            f"{frames // 2}:{frames}."
        )
    return first, end
