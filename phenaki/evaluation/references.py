"""Reference clips, read by index: a prepared data set, or moving shapes."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from phenaki.data.shapes import render
from phenaki.data.shapes import world as shapes_world
from phenaki.evaluation.metrics import checks

# Every evaluation of a data set sees its clips in this one order, whatever the seed of the samples,
# so that evaluations share the features of references.
ORDER_SEED = 0


@runtime_checkable
class ReferenceClips(Protocol):
    """`total` clips that are read by index, in an order without classes or sources in a row."""

    total: int

    @property
    def identity(self) -> dict[str, Any]:
        """JSON-able facts that identify these clips in the settings of an evaluation."""
        ...

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[str | None]]:
        """Clips `start` .. `stop` - 1: float32 [b f h w 3] in [0, 1], and captions or None."""
        ...


def order(count: int, seed: int = ORDER_SEED) -> np.ndarray:
    """The stored numbers of items 0 .. `count` - 1: a permutation by `count` and `seed` alone.

    Stored order is that of folders and classes. With this one the first items of a set, and any of
    its parts, are a random sample of it.
    """
    return np.random.default_rng((seed, count)).permutation(count)


@dataclasses.dataclass(frozen=True)
class _Spec:
    frames: int
    height: int
    width: int
    fps: float


class Prepared:
    """The first `frames` frames of each clip of a prepared data set, in the order of `order`.

    `total` may be lowered: the first clips of the order remain.

    Raises:
        UserError: there is no such split, or the clips are not of the model's size; a centre crop
            would be another reference.
    """

    def __init__(self, directory: str, split: str, kind: str, frames: int, size, fps: float):
        from phenaki.data import format, stored_clips  # TensorFlow, only where it is used

        _, form = format.open_set(directory)
        height, width = size
        checks.same_size((frames, form.height, form.width), (frames, height, width))
        spec = _Spec(frames, height, width, fps)
        self.caption_template = form.caption_template
        self._stored = stored_clips.StoredClips(directory, split, kind, spec)
        self.total = len(self._stored)
        self._order = order(self.total)
        self.identity = dict(
            data=stored_clips.checksum(directory, split, kind),
            split=split,
            kind=kind,
            stored=self.total,
            order_seed=ORDER_SEED,
        )

    def read(self, start: int, stop: int):
        """As `ReferenceClips`; reads the records of these clips only."""
        examples = self._stored.take(self._order[start:stop])
        video = np.stack([example["video"] for example in examples]).astype(np.float32) / 255
        return video, [example["caption"] for example in examples]


class ShapesClips:
    """Clips of a moving shapes world's split, or its images (split "images").

    They need no order: the attributes of clip i are sampled at random by i.
    """

    def __init__(self, world: shapes_world.World, split: str, total: int):
        self.world, self.split, self.total = world, split, total
        self.identity = dict(data=dataclasses.asdict(world), split=split)

    def read(self, start: int, stop: int):
        """As `ReferenceClips`; every clip is rendered from its index alone."""
        numbers = np.arange(start, stop)
        if self.split == "images":
            clips = render.render_images(self.world, "test", numbers)
        else:
            clips = render.render(self.world, self.split, numbers)
        return clips["video"].astype(np.float32) / 255, clips["caption"]


class ClipWindows:
    """`count` windows of `frames` frames of each clip, one frame apart, in clip order."""

    def __init__(self, clips: ReferenceClips, frames: int, count: int):
        self._clips, self._frames, self._count = clips, frames, count
        self.total = clips.total * count
        self.identity = clips.identity | dict(frames=frames, windows=count)

    def read(self, start: int, stop: int):
        """As `ReferenceClips`, windows `start` .. `stop` - 1."""
        first, last = start // self._count, (stop - 1) // self._count
        video, captions = self._clips.read(first, last + 1)
        windows, rows = [], [item // self._count - first for item in range(start, stop)]
        for item, row in zip(range(start, stop), rows, strict=True):
            at = item % self._count
            windows.append(video[row, at : at + self._frames])
        return np.stack(windows), [captions[row] for row in rows]
