"""Jobs of one clip: of a prompt, painted over, or through the tokenizer and back."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from phenaki.io import media
from phenaki.studio.engine import Engine, observer, strip
from phenaki.studio.forms import Prompt
from phenaki.studio.jobs import Job
from phenaki.studio.takes import Takes

Work = Callable[[Job], dict[str, Any]]


def of_prompt(engine: Engine, takes: Takes, owner: str, prompt: Prompt) -> Work:
    """Samples every take of a prompt: samples 0, 1, ... of its seed."""

    def work(job: Job) -> dict[str, Any]:
        options = engine.options(prompt)
        job.show(notes=engine.notes(prompt, options))
        nothing = np.zeros(engine.spec.grid(), bool)
        made: list[dict[str, Any]] = []
        for row in range(prompt.takes):
            seen = observer(job, take=row + 1, of_takes=prompt.takes)
            call: Any = dict(seed=prompt.seed, first_row=row, known=nothing, progress=seen)
            video = engine.model.sample([prompt.text], **call, **options).video[0]
            facts = engine.facts(prompt, row, options) | {"command": engine.command(prompt, row)}
            made.append(takes.add(owner, media.as_uint8(video), engine.spec.fps, facts))
            job.show(takes=list(made))
        return {}

    return work


def of_paint(
    engine: Engine,
    takes: Takes,
    owner: str,
    prompt: Prompt,
    frames: UInt8[np.ndarray, "f h w 3"],
    painted: Bool[np.ndarray, "f h w"],
) -> Work:
    """Samples what is `painted` anew, around the rest of `frames` (docs/fill.md)."""

    def work(job: Job) -> dict[str, Any]:
        options = engine.options(prompt)
        clip = frames[None].astype(np.float32) / 255
        call: Any = dict(video=clip, known=~painted, approximate=True, seed=prompt.seed)
        sample = engine.model.sample([prompt.text], **call, progress=observer(job), **options)
        facts = engine.facts(prompt, 0, options) | {"painted": float(painted.mean())}
        rows = media.as_uint8(sample.video[0])
        take = takes.add(owner, rows, engine.spec.fps, facts, original=frames)
        return {"takes": [take]}

    return work


def of_reconstruction(
    engine: Engine, takes: Takes, owner: str, frames: UInt8[np.ndarray, "f h w 3"], name: str
) -> Work:
    """Puts `frames` through the tokenizer: the film that comes back, tokens and dB per frame."""

    def work(job: Job) -> dict[str, Any]:
        spec, parts, grids = engine.spec, [], []
        length = spec.frames
        clips = -(-len(frames) // length)
        # The last clip is filled up with copies of the last frame, which are left out again.
        extra = np.repeat(frames[-1:], clips * length - len(frames), 0)
        for number, clip in enumerate(np.concatenate([frames, extra]).reshape(
            clips, length, *frames.shape[1:]
        ), 1):  # fmt: skip
            tokens = engine.tokenizer.encode(clip[None] / np.float32(255))
            parts.append(media.as_uint8(engine.tokenizer.decode(tokens)[0]))
            grids.append(tokens[0])
            preview = strip(parts[-1])
            shown = dict(tokens=tokens[0].ravel().tolist(), grid=tokens[0].shape, preview=preview)
            job.show(step=number, steps=clips, **shown)
        video = np.concatenate(parts)[: len(frames)]
        decibels = [_decibel(one, other) for one, other in zip(frames, video, strict=True)]
        facts: dict[str, Any] = {"reconstruction": name, "model": engine.fingerprint}
        facts["psnr"] = _decibel(frames, video)
        take = takes.add(owner, video, spec.fps, facts, original=frames)
        per_frame = _per_frame(grids, spec.patch[0])[: len(frames)]
        return {"takes": [take], "decibels": decibels, "tokens_of_frames": per_frame}

    return work


def _per_frame(grids: list[np.ndarray], time: int) -> list[list[list[int]]]:
    """The tokens [m n] that hold each frame; those of a latent hold `time` frames."""
    return [
        latent.tolist()
        for grid in grids
        for number, latent in enumerate(grid)
        for _ in range(1 if number == 0 else time)
    ]


def _decibel(one: UInt8[np.ndarray, "..."], other: UInt8[np.ndarray, "..."]) -> float:
    """PSNR of 8-bit pixels, at most 99."""
    error = np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2, dtype=np.float64)
    return float(min(99.0, 10 * np.log10(255**2 / max(error, 1e-9))))
