"""Moving digits of scikit-learn, and a reader that has learned digits of other writers.

A digit is enlarged to 22 px and moves a pixel per frame from one side of a frame of 32 px to the
other, white on black. Nothing is downloaded: scikit-learn has its 1797 digits of 8x8 pixels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

SIZE, DIGIT, FRAMES, FPS = 32, 22, 11, 8  # pixels, pixels, frames, frames per second
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # row, column
# scikit-learn lists its 1797 digits by their writers: clips show some, the reader learns others.
FOR_CLIPS = 1000


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip, and what its caption says."""

    video: UInt8[np.ndarray, "f h w"]
    digit: int
    direction: str

    @property
    def caption(self) -> str:
        """Such as "a seven moves left"."""
        return f"{'an' if self.digit == 8 else 'a'} {NAMES[self.digit]} moves {self.direction}"


def load() -> tuple[Float[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    """scikit-learn's digits in 0 to 1, and what they are."""
    from sklearn import datasets

    loaded = datasets.load_digits()
    return loaded.images / 16, loaded.target


def enlarged(digit: Float[np.ndarray, "8 8"]) -> UInt8[np.ndarray, "s s"]:
    """A digit of 22 px."""
    image = Image.fromarray(np.rint(digit * 255).astype(np.uint8))
    return np.asarray(image.resize((DIGIT, DIGIT), Image.Resampling.BICUBIC))


def clip(random: np.random.Generator, images: np.ndarray, labels: np.ndarray) -> Clip:
    """A random digit that moves in a random direction, at a random place across it."""
    chosen, direction = random.integers(len(images)), random.choice(list(DIRECTIONS))
    steps, image = np.array(DIRECTIONS[direction]), enlarged(images[chosen])
    start = np.where(steps == 0, random.integers(0, SIZE - DIGIT + 1, 2), 0)
    start = np.where(steps < 0, SIZE - DIGIT, start)
    video = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    for frame in range(FRAMES):
        row, column = start + steps * frame
        video[frame, row : row + DIGIT, column : column + DIGIT] = image
    return Clip(video, int(labels[chosen]), str(direction))


INK = 0.25  # of white, below which a pixel is background
SAME = 0.9  # of the frames
NONE = -1  # what a frame without ink shows


@dataclasses.dataclass(frozen=True)
class Read:
    """What a clip shows: the digit of most frames, whether it stays, where the ink moves."""

    digit: int
    same: bool
    direction: str


def feature(frame: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " 64"] | None:
    """The digit of a frame in 8x8 pixels around the centre of its ink; None without ink."""
    ink = np.where(frame > INK, frame, 0)
    if ink.sum() < 1:
        return None
    size = DIGIT
    row, column = _centre(ink)
    padded = np.pad(np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8), size)
    top, left = round(row + size / 2 + 0.5), round(column + size / 2 + 0.5)
    cut = Image.fromarray(padded[top : top + size, left : left + size])
    return np.asarray(cut.resize((8, 8), Image.Resampling.BOX)).ravel() / 255


def _centre(ink):
    places = np.indices(ink.shape).reshape(2, -1)
    return places @ ink.ravel() / ink.sum()


class Reader:
    """Reads digits of frames."""

    def __init__(self):
        from sklearn import svm

        images, labels = load()
        images, labels = images[FOR_CLIPS:], labels[FOR_CLIPS:]
        random, shown = np.random.default_rng(0), []
        features: list[Any] = []
        for _ in range(4 * len(images)):  # in other places, and so with other edges
            made = clip(random, images, labels)
            features.append(feature(made.video[random.integers(len(made.video))] / 255))
            shown.append(made.digit)
        self._machine = svm.SVC(C=10).fit(np.stack(features), shown)

    def frames(self, video: Float[np.ndarray, "f h w"]) -> Int[np.ndarray, " f"]:
        """The digit of every frame, or `NONE`."""
        features = [feature(frame) for frame in video]
        found = np.array([one is not None for one in features])
        shown = np.full(len(video), NONE)
        if found.any():
            shown[found] = self._machine.predict(np.stack([f for f in features if f is not None]))
        return shown

    def read(self, video: Float[np.ndarray, "f h w c"]) -> Read:
        """What the clip `video`, in 0 to 1, shows."""
        grey = video.mean(-1)
        values, counts = np.unique(self.frames(grey), return_counts=True)
        most = counts.argmax()
        digit = int(values[most])
        same = digit != NONE and counts[most] >= SAME * len(video)
        return Read(digit, bool(same), _direction(grey))


def _direction(grey):
    inked = [_centre(ink) for ink in np.where(grey > INK, grey, 0) if ink.sum() >= 1]
    moved = inked[-1] - inked[0] if inked else np.zeros(2)
    ways = DIRECTIONS
    return max(ways, key=lambda name: float(np.dot(moved, ways[name])))


def scores(reads: Sequence[Read], captions: Sequence[str]) -> dict[str, int]:
    """How many of `reads` show what `captions` say, by the names of the columns."""
    asked = []
    for caption in captions:
        _, digit, _, direction = caption.split()
        asked.append((NAMES.index(digit), direction))
    pairs = list(zip(reads, asked, strict=True))
    return {
        "asked": sum(one.digit == digit for one, (digit, _) in pairs),
        "same": sum(one.same for one in reads),
        "asked and same": sum(one.same and one.digit == digit for one, (digit, _) in pairs),
        "direction": sum(one.direction == way for one, (_, way) in pairs),
    }
