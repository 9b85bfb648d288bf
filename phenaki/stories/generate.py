"""Tells a timeline window by window, each kept on disk: killed, it goes on; changed, it reuses.

A window is kept under the hash of all that makes it: the model, its prompt, seed and options, its
image, the aids, and the hash of the window before. So one scene changed redoes that scene and what
follows from it, and two stories with the same beginning share its windows.
"""

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from phenaki import __version__
from phenaki.io import checkpoint
from phenaki.pipeline import Phenaki
from phenaki.sampling import options
from phenaki.sampling.windows import Window, stream, windows
from phenaki.stories.storyboard import Shot

Frames = Float[np.ndarray, "f h w 3"]


class GeneratedWindow(NamedTuple):
    """One window: the frames that it adds, all its codes, and whether it was made just now."""

    window: Window
    frames: Frames
    tokens: Int[np.ndarray, "t m n"]
    made: bool


@dataclasses.dataclass(frozen=True)
class DriftOptions:
    """Help against drift; the paper has none, and by default there is none.

    With `reanchor`, the frames handed on are first given the mean and spread of each colour channel
    of their scene's first window. Of `best_of` samples, that with the highest `score`(the K frames
    before or None, the new frames, the prompt) is kept; `score_name` stands for it in the hash.
    """

    reanchor: bool = False
    best_of: int = 1
    score: Callable[[Frames | None, Frames, str | None], float] | None = None
    score_name: str = ""

    def key(self) -> dict[str, Any]:
        """What they change in a window's hash."""
        score = self.score_name if self.best_of > 1 else ""
        return {"reanchor": self.reanchor, "best_of": self.best_of, "score": score}


NO_DRIFT_OPTIONS = DriftOptions()


class WindowCache:
    """The kept windows of a folder: NAME.npz with `frames` (float32) and `codes` (int32)."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> tuple[Frames, np.ndarray] | None:
        """(frames, codes) of a window, or None where there is none that can be read."""
        try:
            # Opened here: NumPy leaves a file that is no archive open.
            with (
                (self.directory / f"{name}.npz").open("rb") as raw,
                np.load(raw, allow_pickle=False) as file,
            ):
                return file["frames"], file["codes"]
        except (FileNotFoundError, zipfile.BadZipFile, EOFError, KeyError, ValueError):
            return None  # cut short by a full disk: made again

    def write(self, name: str, frames: Frames, tokens: np.ndarray) -> None:
        """Keeps a window; it appears whole or not at all."""
        partial = self.directory / f".{name}.partial"
        with partial.open("wb") as file:
            np.savez(file, frames=frames, tokens=tokens)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.directory / f"{name}.npz")


def tell(
    model: Phenaki,
    shots: Sequence[Shot],
    context: int,
    kept: WindowCache,
    read_image: Callable[[Path], Float[np.ndarray, "h w 3"]],
    aids: DriftOptions = NO_DRIFT_OPTIONS,
) -> Iterator[GeneratedWindow]:
    """The windows of a story, one at a time; nothing but the last K frames stays in memory.

    Where no aid is used the frames are those of `Phenaki.story`, bit by bit.
    """
    identity = _identity(model)
    plan = windows(shots, model.spec, context)
    name = given = anchor = None
    for number, window in enumerate(plan):
        shot = shots[window.scene]
        first = number == 0 or plan[number - 1].scene != window.scene
        image = None
        if window.starts:
            name = given = None
            image = read_image(shot.image) if shot.image else None
        seed = stream(shot.seed, number)
        chosen = options.resolve(model.config, **shot.sampler)._asdict()
        facts = {
            **identity,
            "prompt": shot.prompt,
            "seed": seed,
            "options": {key: chosen[key] for key in sorted(chosen)},
            "context": context,
            "aids": aids.key(),
            "first": aids.reanchor and first,
            "image": image is not None and hashlib.sha256(image.tobytes()).hexdigest(),
            "before": name,
        }
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        found = kept.read(name)
        made = found is None
        if found is None:
            start: np.ndarray | None = given
            if given is not None and anchor is not None and not first:
                start = recolour(given, anchor)
            found = _sample(model, shot, start, image, seed, aids)
            kept.write(name, *found)
        frames, tokens = found
        if aids.reanchor and first:
            anchor = frames
        given = frames if given is None else np.concatenate([given, frames])
        given = given[-context:].copy()  # a view would hold on to all of them
        yield GeneratedWindow(window, frames, tokens, made)


def recolour(frames: Frames, like: Float[np.ndarray, "g h w 3"]) -> Frames:
    """`frames` with the mean and standard deviation of every channel of `like`."""
    mean, std = (f((0, 1, 2)) for f in (frames.mean, frames.std))
    # A flat channel has no spread to scale.
    scale = np.where(std > 1e-3, like.std((0, 1, 2)) / np.maximum(std, 1e-3), 1)
    moved = (frames - mean) * scale + like.mean((0, 1, 2))
    return np.clip(moved, 0, 1).astype(np.float32)


def _identity(model: Phenaki) -> dict[str, Any]:
    """What makes the same call of this model give the same window."""
    whole = model.config.to_dict()
    fields = {key: whole.get(key) for key in ("model", "text", "dtype")}
    return {
        "version": __version__,
        "model": checkpoint.fingerprint(model.params, whole),
        "config": fields,
    }


def _sample(model, shot, given, image, seed, aids) -> tuple[Frames, np.ndarray]:
    """(new frames, codes) of one window."""
    count = aids.best_of
    prompts = [shot.prompt] * count
    if image is not None:
        images = np.repeat(image[None], count, 0)
        videos = model.animate(images, prompts, seed=seed, **shot.sampler)
    else:
        before = None if given is None else np.repeat(given[None], count, 0)
        videos = model.follow(before, prompts, seed=seed, **shot.sampler)
    best = 0
    if count > 1 and aids.score is not None:
        best = int(np.argmax([aids.score(given, video, shot.prompt) for video in videos]))
    tokens = np.asarray(model.tokens[best], np.int32).reshape(model.spec.grid())
    return np.asarray(videos[best], np.float32), tokens
