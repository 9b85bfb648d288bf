"""Which flags of scripts/sample.py go together: the one table of what is used, refused or noted."""

from collections.abc import Mapping
from typing import Any

from phenaki.errors import UserError

TASKS = ("prompt", "scene", "story")
_STORIES = ("scene", "story")
# Flag -> the tasks that use it. Flags that are not here are used by every task.
USED_BY: Mapping[str, tuple[str, ...]] = {
    "image": ("prompt",),
    "video": ("prompt",),
    "frames": ("prompt",),
    "critic": ("prompt",),
    "preview": _STORIES,
    "windows": _STORIES,
    "reanchor": _STORIES,
    "best_of": _STORIES,
    "score": _STORIES,
    "weights": _STORIES,
    "reroll": ("story",),
}
# Two flags of which one would be ignored, and what to do.
EXCLUDED: Mapping[tuple[str, str], str] = {
    ("scene", "story"): "give one of them",
    ("image", "video"): "both are the beginning; give one of them",
    ("image", "frames"): "an image starts a whole clip; leave out --frames",
    ("video", "frames"): "a video is continued by one window; leave out --frames",
    ("preview", "steps"): "a preview has steps of its own; leave out --steps",
}
# Flag -> another one without which it has no effect, and how to give that.
NEEDED: Mapping[str, tuple[str, str]] = {"score": ("best_of", "--best_of=2 or more")}
_HINTS = {"image": "; an image of a scene is a key of the --story file (docs/stories.md)"}


def check(given: Mapping[str, Any]) -> list[str]:
    """A sentence for every flag that a part of the call does not use.

    `given` are the flags of the command line that are switched on, with their values.

    Raises:
        UserError: there is nothing to sample, or a flag would have no effect with the others.
    """
    tasks = [task for task in TASKS if task in given]
    if not tasks:
        raise UserError("nothing to sample: give --prompt or --scene.")
    for (one, other), rule in EXCLUDED.items():
        if one in given and other in given:
            raise UserError(f"{_shown(given, one)} and {_shown(given, other)}: {rule}.")
    notes = []
    for flag, users in USED_BY.items():
        if flag not in given:
            continue
        unused = [f"--{task}" for task in tasks if task not in users]
        if len(unused) == len(tasks):
            wanted = " or ".join(f"--{task}" for task in users)
            raise UserError(
                f"{_shown(given, flag)}: is used with {wanted} only{_HINTS.get(flag, '')}."
            )
        if unused:
            notes.append(f"{_shown(given, flag)} has no effect on {unused[0]}.")
    for flag, (other, how) in NEEDED.items():
        if flag in given and other not in given:
            raise UserError(f"{_shown(given, flag)}: has no effect without --{other}; give {how}.")
    return notes


def _shown(given, flag):
    value = given[flag]
    return f"--{flag}" if isinstance(value, bool | list) else f"--{flag}={value}"
