"""Which flags of scripts/sample.py go together: the one table of what is used, refused or noted."""

from collections.abc import Mapping
from typing import Any

from phenaki.errors import UserError

TASKS = ("prompt", "unconditional", "scene", "story")
CLIPS, STORIES = ("prompt", "unconditional"), ("scene", "story")
# Flag -> the tasks that use it. Flags that are not here are used by every task.
USED_BY: Mapping[str, tuple[str, ...]] = {
    "image": CLIPS,
    "video": CLIPS,
    "frames": CLIPS,
    "preview": STORIES,
    "windows": STORIES,
    "reanchor": STORIES,
    "best_of": STORIES,
    "score": STORIES,
    "weights": STORIES,
    "reroll": ("story",),
}
GUIDANCE = (
    "guidance",
    "guidance_schedule",
    "guidance_limit",
    "guidance_min_p",
    "guidance_interval",
)
# Two flags of which one would be ignored, and what to do.
EXCLUDED: Mapping[tuple[str, str], str] = {
    ("scene", "story"): "give one of them",
    ("prompt", "unconditional"): "a sample has text or none; give one of them",
    ("unconditional", "negative"): "without text there is nothing to lead away from",
    **{("unconditional", flag): "without text there is nothing to guide to" for flag in GUIDANCE},
    ("image", "video"): "both are the beginning; give one of them",
    ("image", "frames"): "an image starts a whole clip; leave out --frames",
    ("video", "frames"): "a video is continued by one window; leave out --frames",
    ("student", "critic"): "a student's first tokens stay; give one of them",
    **{
        ("student", flag): "a student is not guided; leave one of them out"
        for flag in (*GUIDANCE, "negative")
    },
    ("student", "view"): "a student sees the whole clip; leave one of them out",
    ("student", "image"): "a student draws whole clips, or continues --video",
    ("student", "frames"): "a student draws whole clips, or continues --video",
    ("student", "context"): "a student knows the model's own context only",
    ("student", "preset"): "a preset is of the model's own sampler; leave one of them out",
    ("preview", "student"): "a preview has steps of the model's own; leave out --student",
    ("preview", "steps"): "a preview has steps of its own; leave out --steps",
}
# Flag -> others without one of which it has no effect, and how to give that.
NEEDED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "score": (("best_of",), "--best_of=2 or more"),
    "critic_guidance": (("critic",), "--critic"),
    "critic_noise": (("critic",), "--critic"),
    "context": (("video", "scene", "story"), "what is continued"),
}
_HINTS = {"image": "; an image of a scene is a key of the --story file (docs/stories.md)"}


def check(given: Mapping[str, Any], possible: tuple[str, ...] = TASKS) -> list[str]:
    """A sentence for every flag that a part of the call does not use.

    `given` are the flags of the command line that are switched on, with their values; `possible`
    are the tasks of the command.

    Raises:
        UserError: there is nothing to sample, or a flag would have no effect with the others.
    """
    tasks = [task for task in TASKS if task in given]
    if not tasks:
        raise UserError(f"nothing to sample: give --{' or --'.join(possible)}.")
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
    for flag, (others, how) in NEEDED.items():
        if flag in given and not set(others) & set(given):
            wanted = " or ".join(f"--{other}" for other in others)
            raise UserError(f"{_shown(given, flag)}: has no effect without {wanted}; give {how}.")
    return notes


def _shown(given, flag):
    value = given[flag]
    return f"--{flag}" if isinstance(value, bool | list) else f"--{flag}={value}"
