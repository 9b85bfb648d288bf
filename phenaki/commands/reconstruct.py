"""Puts a video through a tokenizer: the video that comes back, its tokens, and dB.

    phenaki reconstruct --model=laptop --video=clip.mp4 --output=out

--model is a tokenizer's run or bundle, or a whole model's. Writes reconstruction.mp4,
comparison.mp4 with the original at its left, and tokens.npz with `tokens` [clips t m n], the clips
of --video one after another; reconstruction.json says how they were made. PSNR is that of all
pixels. An earlier reconstruction in OUTPUT that was made otherwise is moved to take_1, take_2, ...
"""

import shlex
import sys

import numpy as np
from absl import flags

from phenaki import __version__, cli
from phenaki.commands import prompts, sampling_flags
from phenaki.io import artifacts, media, outputs, provenance, shipped, takes

flags.declare_key_flag(cli.NO_VERIFY.name)
MODEL = flags.DEFINE_string("model", None, "a tokenizer's run or bundle", required=True)
VIDEO = flags.DEFINE_string("video", None, "the video", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder for what is written", required=True)
SCALE = flags.DEFINE_integer("scale", None, "enlarge pixels; default: to about 256", lower_bound=1)

FILES = ("reconstruction.mp4", "comparison.mp4", "tokens.npz", "reconstruction.json")


def main(argv):
    """Reconstructs and writes."""
    del argv
    inputs = [("model", shipped.find(MODEL.value, shipped.MODELS)), ("video", VIDEO.value)]
    with outputs.claimed("output", OUTPUT.value, "samples", inputs) as claim:
        _reconstruct(claim.directory)


def _reconstruct(output):
    from phenaki.models.frozen import Tokenizer

    tokenizer = Tokenizer.load(MODEL.value)
    spec = tokenizer.spec
    frames = prompts.read_video(VIDEO.value, spec)
    # The last clip is filled up with copies of the last frame, which are left out again.
    length = min(spec.frames, -(-(len(frames) - 1) // spec.patch[0]) * spec.patch[0] + 1)
    clips = -(-len(frames) // length)
    padded = np.concatenate([frames, np.repeat(frames[-1:], clips * length - len(frames), 0)])
    original = padded.reshape(clips, length, *frames.shape[1:])
    tokens = np.concatenate([tokenizer.encode(clip[None] / np.float32(255)) for clip in original])
    video = np.concatenate([tokenizer.decode(clip[None])[0] for clip in tokens])[: len(frames)]
    error = np.mean((np.rint(video * 255) - frames.astype(np.float32)) ** 2, dtype=np.float64)

    facts = {"phenaki": __version__, "tokenizer": tokenizer.fingerprint, "video": VIDEO.value}
    facts["command"] = shlex.join(sys.argv)
    if folder := takes.keep(output, FILES, facts, artifacts.marked(output / FILES[-1])):
        sampling_flags.note(f"the reconstruction that was in {output} is now in {folder}.")
    outputs.enlist(output, FILES)
    scale = SCALE.value or media.scale_to_see(spec.height, spec.width)
    media.write_mp4(output / "reconstruction.mp4", video, spec.fps, scale, facts)
    both = np.concatenate([frames, media.as_uint8(video)], 2)
    media.write_mp4(output / "comparison.mp4", both, spec.fps, scale, facts)
    with artifacts.atomic(output / "tokens.npz") as partial, partial.open("wb") as file:
        np.savez(file, tokens=tokens)
    with artifacts.atomic(output / FILES[-1]) as partial:
        partial.write_text(provenance.text(facts), encoding="utf-8")
    decibel = 10 * np.log10(255**2 / error) if error else float("inf")
    shape = "x".join(map(str, tokens.shape[1:]))
    print(
        f"{output}/reconstruction.mp4: {len(frames)} frames, {clips} clips of {shape} tokens, "
        f"PSNR {decibel:.1f} dB"
    )
