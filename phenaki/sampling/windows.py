"""Windows of a long video: the frames that each call of the model adds (docs/paper.md#long-videos).

A story is a list of scenes. Each window after the first is conditioned on the last K = `context`
frames before it, and adds the rest of a clip. A scene may have a K of its own.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

from phenaki.errors import UserError
from phenaki.schema.rules import check
from phenaki.schema.sampling import CONTEXT
from phenaki.types import VideoSpec

LONGEST = 24 * 3600  # seconds of a scene; more is a slip


@dataclasses.dataclass(frozen=True)
class Scene:
    """A prompt and its duration; after a hard `cut` it does not depend on the scene before.

    `context` is the K of its windows; None: that of the story.
    """

    prompt: str | None
    seconds: float
    cut: bool = False
    context: int | None = dataclasses.field(default=None, kw_only=True)

    def context_of(self, story: int) -> int:
        """K of its windows in a story of K = `story`."""
        return story if self.context is None else self.context


@dataclasses.dataclass(frozen=True)
class Window:
    """One call of the model: it adds frames `start` .. `stop` - 1 of the video for `scene`."""

    scene: int
    start: int
    stop: int
    starts: bool = False  # without context: the first window, and the first after a hard cut


def check_clips(spec: VideoSpec) -> None:
    """Raises `UserError` for a model of images, which has no frames after a given one."""
    if spec.frames == 1:
        raise UserError(
            "this model was trained on images (config.video.frames=1): it samples images from "
            "prompts, and neither stories nor frames after an image or a video."
        )


def check_context(spec: VideoSpec, context: int, where: str = "config.sample.context") -> None:
    """Raises `UserError` unless windows can be conditioned on `context` frames.

    These are whole latents, 1 + a multiple of the temporal patch, and leave a new frame to sample.
    """
    check_clips(spec)
    check(where, context, CONTEXT.rule)
    nearest = min(spec.nearest_frames(max(context, 1)), spec.frames - spec.patch[0])
    if context != nearest:
        raise UserError(
            f"{where}={context} must be 1 + a multiple of {spec.patch[0]} below "
            f"{spec.frames} frames; nearest is {nearest}."
        )


def check_scenes(scenes: Any) -> None:
    """Raises `UserError` unless `scenes` are `Scene`s, at least one."""
    if isinstance(scenes, Scene):
        raise UserError(f"scenes={scenes!r}: must be a list; give [{scenes!r}].")
    if not scenes:
        raise UserError(
            "a story needs at least one scene, such as --scene='a red circle moves left@2'."
        )
    for number, scene in enumerate(scenes, 1):
        if not isinstance(scene, Scene):
            raise UserError(
                f"scene {number}: {scene!r} must be a phenaki.sampling.windows.Scene, such as "
                "Scene('a red circle moves left', 1.4)."
            )


def windows(scenes: Sequence[Scene], spec: VideoSpec, context: int) -> list[Window]:
    """The windows of a story: `spec.frames` frames first, then `spec.frames - context` at a time.

    A hard cut starts like the first window. Every scene lasts a whole number of windows, at least
    one, so that a new prompt starts with a window. It ends with the window nearest to the sum of
    the durations since the last hard cut, so that rounding does not add up; a scene shorter than a
    window takes at most half a window from the next. A hard cut starts a new sum, so that a change
    before it changes nothing after it. With the paper's numbers a story of n windows has
    11 + 6(n - 1) frames.

    Raises:
        UserError: a scene's duration is not above 0 or infinite, or see `check_scenes` and
            `check_context`.
    """
    check_context(spec, context)
    check_scenes(scenes)
    result: list[Window] = []
    owed = 0.0  # frames asked since the last hard cut, less those of windows
    for index, scene in enumerate(scenes):
        seconds: Any = scene.seconds
        is_number = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
        if not is_number:
            raise UserError(f"scene {index + 1}: seconds={seconds!r} must be a number.")
        if not 0 < seconds < math.inf:
            raise UserError(f"scene {index + 1}: {seconds} seconds must be above 0 and finite.")
        if seconds > LONGEST:
            shown = f"{min(seconds, 1e300):g}"  # a whole number may be beyond all of float
            raise UserError(f"scene {index + 1}: {shown} seconds must be at most {LONGEST}, a day.")
        given = scene.context_of(context)
        if scene.context is not None:
            check_context(spec, given, f"scene {index + 1}: context")
        new = spec.frames - given
        anew = scene.cut or not result
        owed = (0.0 if anew else owed) + scene.seconds * spec.fps
        # A window without context has K frames more than the others.
        owed -= given if anew else 0
        count = max(1, round(owed / new))
        # What the shortest scenes last longer than asked is not taken from scenes after them.
        owed = max(owed - count * new, -new / 2 + 1e-6)
        for number in range(count):
            start = result[-1].stop if result else 0
            starts = anew and number == 0
            result.append(Window(index, start, start + (spec.frames if starts else new), starts))
    return result


def places(plan: Sequence[Window]) -> list[int]:
    """The number of every window since the last hard cut, 0 for the first one."""
    result: list[int] = []
    for window in plan:
        result.append(0 if window.starts else result[-1] + 1)
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
