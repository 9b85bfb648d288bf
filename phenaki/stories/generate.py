"""Generates a story window by window, with a resumable, content-addressed window cache.

A window is stored under the hash of everything it depends on: the model, its prompt, seed, options
and image, the drift options, and the hash of the window before. So a story that was interrupted
resumes, a changed scene is sampled again with what follows from it, and two stories with the same
beginning share its windows.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from phenaki import __version__
from phenaki.errors import UserError
from phenaki.io import checkpoint, npz, outputs, paths
from phenaki.io.artifacts import atomic
from phenaki.io.clean_text import clean
from phenaki.io.paths import AnyPath, PathLike
from phenaki.pipeline import Phenaki
from phenaki.sampling import options, watch
from phenaki.sampling.seeds import stream
from phenaki.sampling.windows import Window, places
from phenaki.stories.storyboard import Shot, Storyboard

Frames = Float[np.ndarray, "f h w 3"]
WindowTokens = Int[np.ndarray, "t m n"]


class GeneratedWindow(NamedTuple):
    """The frames that a window adds, and the tokens of its whole clip."""

    window: Window
    frames: Frames
    tokens: WindowTokens
    sampled: bool  # now, not read from the cache


@dataclasses.dataclass(frozen=True)
class DriftOptions:
    """Measures against drift; the paper has none, and by default there is none.

    Attributes:
        match_colours: gives the context frames of a window, before they are encoded, the mean and
            standard deviation of each colour channel of their scene's first window.
        candidates: how many samples of a window are scored; the one with the highest score is kept.
        score: (the K context frames or None, the new frames, the prompt) -> score.
        score_name: identifies `score` in the window's hash.
    """

    match_colours: bool = False
    candidates: int = 1
    score: Callable[[Frames | None, Frames, str | None], float] | None = None
    score_name: str = ""

    def key(self) -> dict[str, Any]:
        """What they add to a window's hash; its names are a file format."""
        score = self.score_name if self.candidates > 1 else ""
        return {"reanchor": self.match_colours, "best_of": self.candidates, "score": score}


NO_DRIFT_OPTIONS = DriftOptions()


class WindowShape(NamedTuple):
    """What a stored window must have."""

    frames: tuple[int, int, int, int]  # f, h, w, 3
    tokens: tuple[int, int, int]  # t, m, n
    codebook: int

    def check(self, frames: np.ndarray, tokens: np.ndarray) -> None:
        """Raises `ValueError` for a window of another shape or type, or values out of range."""
        for what, array, shape, kind in (
            ("frames", frames, self.frames, np.float32),
            ("tokens", tokens, self.tokens, np.int32),
        ):
            if array.shape != shape or array.dtype != kind:
                raise ValueError(f"{what} are {array.dtype} {array.shape}, not {shape}")
        if not (0 <= frames.min() <= frames.max() <= 1):  # also of NaN
            raise ValueError("frames are not within [0, 1]")
        if not 0 <= tokens.min() <= tokens.max() < self.codebook:
            raise ValueError(f"tokens are not below {self.codebook}")


class WindowCache:
    """A folder of windows: KEY.npz with `frames` (float32) and `codes` (int32), the tokens.

    `key` is that of its name, in bytes; files of earlier versions have none. Several stories may
    share one at a time: a file is replaced as a whole, by the same content.
    """

    def __init__(self, directory: PathLike):
        """Raises `UserError` if there is something else in the folder."""
        self.directory = paths.path(directory)
        outputs.admit("windows", directory, "windows")
        outputs.make("windows", self.directory)

    def read(
        self, key: str, shape: WindowShape | None = None
    ) -> tuple[Frames, WindowTokens] | None:
        """(frames, tokens) of a window, or None where there is none; a damaged one is a warning.

        Raises:
            UserError: a folder is in its place.
        """
        path = self.directory / f"{key}.npz"
        try:
            with paths.local(path) as file:
                arrays = npz.read(file)
            if bytes(arrays.get("key", _bytes(key))) != key.encode():
                raise ValueError("it is another window's")
            if shape is not None:
                shape.check(arrays["frames"], arrays["codes"])
            return arrays["frames"], arrays["codes"]
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            raise UserError(f"{path}: is a folder where a window's file is to be.") from None
        except Exception as error:  # of a damaged archive any
            logging.warning("%s: is damaged (%s); the window is sampled again.", path, error)
            return None

    def write(self, key: str, frames: Frames, tokens: WindowTokens) -> None:
        """Stores a window atomically."""
        with (
            atomic(self.directory / f"{key}.npz") as partial,
            partial.open("wb") as file,
        ):
            np.savez(file, frames=frames, codes=tokens, key=_bytes(key))
            file.flush()
            os.fsync(file.fileno())


def _bytes(key: str) -> np.ndarray:
    return np.frombuffer(key.encode(), np.uint8)


def generate_windows(
    model: Phenaki,
    storyboard: Storyboard,
    plan: Sequence[Window],
    cache: WindowCache,
    read_image: Callable[[AnyPath], Float[np.ndarray, "h w 3"]],
    drift: DriftOptions = NO_DRIFT_OPTIONS,
    observer: watch.Observer | None = None,
) -> Iterator[GeneratedWindow]:
    """The windows `plan` of a story, one at a time; only the last K frames stay in memory.

    `plan` are the `windows` of the storyboard's shots; `read_image` gives the first frame of a shot
    with an image, in [0, 1]. `observer` sees every decoding step. Without drift options the frames
    are those of `Phenaki.story`.
    """
    model_facts = _model_facts(model)
    key: str | None = None
    context: Frames | None = None
    anchor: Frames | None = None  # the first window of the scene
    numbers, size = places(plan), (model.spec.height, model.spec.width)
    longest = max(shot.context_of(storyboard.context) for shot in storyboard.shots)
    for number, window in enumerate(plan):
        shot = storyboard.shots[window.scene]
        count = shot.context_of(storyboard.context)
        first_of_scene = number == 0 or plan[number - 1].scene != window.scene
        image = None
        if window.starts:
            key = context = None
            image = read_image(shot.image) if shot.image else None
        seed = stream(shot.seed, numbers[number])
        facts = model_facts | {
            "first": drift.match_colours and first_of_scene,
            "image": image is not None and hashlib.sha256(image.tobytes()).hexdigest(),
            "before": key,
        }
        key = _key(model, shot, seed, count, drift, facts)
        frames_shape = (window.stop - window.start, *size, 3)
        stored = cache.read(key, WindowShape(frames_shape, model.spec.grid(), model.codebook))
        if stored is None:
            given = None if context is None else context[-count:]
            if given is not None and anchor is not None and not first_of_scene:
                given = match_colours(given, anchor)
            seen = watch.of_window(observer, number + 1, len(plan))
            frames, tokens = _sample(model, shot, given, image, seed, drift, seen)
            cache.write(key, frames, tokens)
        else:
            frames, tokens = stored
        if drift.match_colours and first_of_scene:
            anchor = frames
        context = _last(longest, context, frames)
        yield GeneratedWindow(window, frames, tokens, sampled=stored is None)


def _last(
    count: int, before: Float[np.ndarray, "g h w 3"] | None, frames: Frames
) -> Float[np.ndarray, "k h w 3"]:
    """The last frames of both; a copy, as a view would keep all of them alive."""
    every = frames if before is None else np.concatenate([before, frames])
    return every[-count:].copy()


def match_colours(frames: Frames, like: Float[np.ndarray, "g h w 3"]) -> Frames:
    """`frames` with the mean and standard deviation of every channel of `like`."""
    mean, std = (f((0, 1, 2)) for f in (frames.mean, frames.std))
    # A flat channel has no deviation to scale.
    scale = np.where(std > 1e-3, like.std((0, 1, 2)) / np.maximum(std, 1e-3), 1)
    moved = (frames - mean) * scale + like.mean((0, 1, 2))
    return np.clip(moved, 0, 1).astype(np.float32)


def _key(model, shot, seed, context, drift, facts) -> str:
    """The hash that names a window; `facts` are those that other arguments do not tell.

    The names in the dictionary, and their values, are a file format: existing caches are found by
    them.
    """
    continues = facts["before"] is not None or facts["image"] is not False
    chosen = options.resolve(model.defaults, continues=continues, **shot.sampler)
    facts = {
        **facts,
        "prompt": clean(shot.prompt),
        "seed": seed,
        "options": chosen.facts(),
        "context": context,
        "aids": drift.key(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _model_facts(model: Phenaki) -> dict[str, Any]:
    """What a call's result depends on apart from its arguments."""
    config = model.config.to_dict()
    return {
        "version": __version__,
        "model": checkpoint.fingerprint(model.params, model.config.to_dict()),
        "config": {name: config.get(name) for name in ("model", "text", "dtype")},
    }


def _sample(
    model: Phenaki,
    shot: Shot,
    context: Float[np.ndarray, "k h w 3"] | None,
    image: Float[np.ndarray, "h w 3"] | None,
    seed: int,
    drift: DriftOptions,
    progress: watch.Given,
) -> tuple[Frames, WindowTokens]:
    """(new frames, tokens) of one window, the best of its candidates."""
    count = drift.candidates
    first = context if image is None else image[None]
    given = None if first is None else np.repeat(first[None], count, 0)
    call: Any = dict(seed=seed, video=given, progress=progress)
    sample = model.sample([shot.prompt] * count, **call, **shot.sampler)
    # An image is a new frame of the video; context frames are not.
    videos = sample.video if context is None else sample.video[:, len(context) :]
    best = 0
    if count > 1 and drift.score is not None:
        best = int(np.argmax([drift.score(context, video, shot.prompt) for video in videos]))
    return np.asarray(videos[best], np.float32), np.asarray(sample.tokens[best], np.int32)
