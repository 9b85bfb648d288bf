"""Scenes to windows: the frames that each call of the model adds (docs/paper.md#long-videos)."""

import dataclasses
from collections.abc import Sequence

from phenaki.errors import UserError
from phenaki.types import VideoSpec


@dataclasses.dataclass(frozen=True)
class Scene:
    """A prompt and how long it lasts; with a hard `cut` it knows nothing of the scene before."""

    prompt: str | None
    seconds: float
    cut: bool = False


@dataclasses.dataclass(frozen=True)
class Window:
    """One call of the model: it adds frames `start` .. `stop` - 1 of the video for `scene`."""

    scene: int
    start: int
    stop: int
    starts: bool = False  # a whole clip anew: the first window, and that after a hard cut


def stream(seed: int, number: int) -> int:
    """The seed of window `number`: fresh noise in every window."""
    return seed + 1_000_003 * number


def check_context(spec: VideoSpec, context: int, where: str = "config.sample.context") -> None:
    """Raises `UserError` unless `context` frames can be handed from window to window."""
    nearest = min(spec.nearest_frames(max(context, 1)), spec.frames - spec.patch[0])
    if context != nearest:
        raise UserError(
            f"{where}={context} must be 1 + a multiple of {spec.patch[0]} below "
            f"{spec.frames} frames; nearest is {nearest}."
        )


def windows(scenes: Sequence[Scene], spec: VideoSpec, context: int) -> list[Window]:
    """The windows of a story: `spec.frames` frames first, then `spec.frames - context` at a time.

    A hard cut starts like the first one. Every scene lasts a whole number of windows, the nearest
    to what it asks for and at least one, so that a new prompt starts with a window. A story of n
    windows has 11 + 6(n - 1) frames with the paper's numbers.
    """
    check_context(spec, context)
    if not scenes:
        raise UserError(
            "a story needs at least one scene, such as --scene='a red circle moves left@2'."
        )
    new = spec.frames - context
    result: list[Window] = []
    for index, scene in enumerate(scenes):
        if scene.seconds <= 0:
            raise UserError(f"scene {index + 1}: {scene.seconds} seconds must be above 0.")
        frames = scene.seconds * spec.fps
        anew = scene.cut or not result
        count = max(1, round((frames - context if anew else frames) / new))
        for number in range(count):
            start = result[-1].stop if result else 0
            starts = anew and number == 0
            result.append(Window(index, start, start + (spec.frames if starts else new), starts))
    return result


def segments(parts: Sequence[Window]) -> list[tuple[int, int]]:
    """First frame and end of every scene."""
    scenes = sorted({part.scene for part in parts})
    return [
        (min(p.start for p in parts if p.scene == s), max(p.stop for p in parts if p.scene == s))
        for s in scenes
    ]
