"""Windows of a long video: the frames that each call of the model adds (docs/paper.md#long-videos).

A story is a list of scenes. Each window after the first is conditioned on the last K = `context`
frames before it, and adds the rest of a clip.
"""

import dataclasses
from collections.abc import Sequence

from phenaki.errors import UserError
from phenaki.types import VideoSpec


@dataclasses.dataclass(frozen=True)
class Scene:
    """A prompt and its duration; after a hard `cut` it does not depend on the scene before."""

    prompt: str | None
    seconds: float
    cut: bool = False


@dataclasses.dataclass(frozen=True)
class Window:
    """One call of the model: it adds frames `start` .. `stop` - 1 of the video for `scene`."""

    scene: int
    start: int
    stop: int
    starts: bool = False  # without context: the first window, and the first after a hard cut


def stream(seed: int, number: int) -> int:
    """The seed of window `number`: every window has noise of its own."""
    return seed + 1_000_003 * number


def check_context(spec: VideoSpec, context: int, where: str = "config.sample.context") -> None:
    """Raises `UserError` unless windows can be conditioned on `context` frames.

    These are whole latents, 1 + a multiple of the temporal patch, and leave a new frame to sample.
    """
    nearest = min(spec.nearest_frames(max(context, 1)), spec.frames - spec.patch[0])
    if context != nearest:
        raise UserError(
            f"{where}={context} must be 1 + a multiple of {spec.patch[0]} below "
            f"{spec.frames} frames; nearest is {nearest}."
        )


def windows(scenes: Sequence[Scene], spec: VideoSpec, context: int) -> list[Window]:
    """The windows of a story: `spec.frames` frames first, then `spec.frames - context` at a time.

    A hard cut starts like the first window. Every scene lasts a whole number of windows, the
    nearest to its duration and at least one, so that a new prompt starts with a window. With the
    paper's numbers a story of n windows has 11 + 6(n - 1) frames.

    Raises:
        UserError: there is no scene, a scene's duration is not above 0, or see `check_context`.
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
        # A window without context has `context` frames more than the others.
        count = max(1, round((frames - context if anew else frames) / new))
        for number in range(count):
            start = result[-1].stop if result else 0
            starts = anew and number == 0
            result.append(Window(index, start, start + (spec.frames if starts else new), starts))
    return result


def segments(windows: Sequence[Window]) -> list[tuple[int, int]]:
    """The first frame and the end (exclusive) of every scene."""
    scenes = sorted({window.scene for window in windows})
    return [
        (
            min(window.start for window in windows if window.scene == scene),
            max(window.stop for window in windows if window.scene == scene),
        )
        for scene in scenes
    ]
