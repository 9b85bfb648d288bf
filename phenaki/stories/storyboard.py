"""Storyboards: a story as a YAML file of scenes, checked line by line.

    seed: 1               # of all scenes without a seed of their own
    choice_temperature: 1
    context: 5            # K, the frames that the next window is conditioned on
    scenes:
      - prompt: a red circle moves right
        seconds: 3
        image: first.png  # its first frame; path from this file
      - prompt: then a blue circle moves right
        seconds: 3
      - prompt: a green square moves up
        seconds: 3
        cut: hard         # starts anew; the default, morph, continues from the last frames
        guidance: 1.5

At the top, every key of a scene but `prompt` and `image` is a default for all scenes. A scene's
`null` switches that off: the model's own value applies, for `seed` that of the call.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from phenaki.errors import UserError, check_seed, did_you_mean
from phenaki.io import paths, shipped
from phenaki.io.clean_text import clean
from phenaki.io.paths import AnyPath, PathLike
from phenaki.sampling import seeds
from phenaki.sampling.windows import Scene, check_context
from phenaki.types import VideoSpec


@dataclasses.dataclass(frozen=True)
class Shot(Scene):
    """A scene with everything that a storyboard says of it.

    Sampling options that are None are the model's own, whatever a caller's defaults are.
    """

    seed: int = 0
    image: AnyPath | None = None  # its first frame
    sampler: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # sampling options


@dataclasses.dataclass(frozen=True)
class Storyboard:
    """Shots, and K, on how many frames of a window the next one is conditioned."""

    shots: Sequence[Shot]
    context: int
    own_seeds: bool = False  # every shot has a seed of its own, not the caller's default


class _Value(NamedTuple):
    line: int
    value: Any


def _number(least: int | float = -math.inf, above: int | float | None = None, most=math.inf):
    def check(value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        if above is not None and not value > above:
            return f"must be above {above}"
        if not math.isfinite(value):
            return "must be finite"
        return None if least <= value <= most else f"must lie in [{least}, {most}]"

    return check


def _integer(least: int):
    def check(value):
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        return None if value >= least else f"must be at least {least}"

    return check


def _seed(value):
    if isinstance(value, bool) or not isinstance(value, int):
        return "must be a whole number"
    try:
        check_seed("seed", value, seeds.BITS)
    except UserError as error:
        return str(error).removeprefix(f"seed={value} ").rstrip(".")
    return None


def _text(value):
    # Unquoted, YAML reads yes, no, null and 12 as other types.
    return None if isinstance(value, str) and value.strip() else "must be text, quoted if necessary"


def _or_null(check):
    return lambda value: None if value is None else check(value)


def _cut(value):
    return None if value in ("hard", "morph") else "must be hard or morph"


def _interval(value):
    whole = isinstance(value, list) and len(value) == 2
    if whole and all(_number(0, most=1)(x) is None for x in value) and value[0] < value[1]:
        return None
    return "must be two rising fractions, such as [0, 0.25]"


_Checks = Mapping[str, Callable[[Any], str | None]]
# The options of `phenaki.sampling.options` that a storyboard may set, by the same names.
SAMPLER: _Checks = {
    "steps": _integer(1),
    "guidance": _number(),
    "guidance_schedule": _text,
    "choice_temperature": _number(0),
    "temperature": _number(0),
    "negative": _text,
    "preset": _text,
    "schedule": _text,
    "top_k": _integer(0),
    "top_p": _number(0, most=1),
    "min_p": _number(0, most=1),
    "order": _text,
    "guidance_limit": _number(0),
    "guidance_min_p": _number(0, most=1),
    "guidance_interval": _interval,
}
OWN: _Checks = {"seed": _seed, "cut": _cut, **SAMPLER}
COMMON: _Checks = {"seconds": _number(above=0), **{k: _or_null(v) for k, v in OWN.items()}}
SCENE: _Checks = {"prompt": _or_null(_text), "image": _or_null(_text), **COMMON}
STORY: _Checks = {"context": _or_null(_integer(0)), "scenes": lambda value: None, **COMMON}


def read(path: PathLike, spec: VideoSpec, context: int, seed: int) -> Storyboard:
    """The storyboard in the file `path`; `context` and `seed` are its defaults.

    Raises:
        UserError: with file and line, the value and the rule; with the nearest key for an unknown
            one.
    """
    path = shipped.find(path, shipped.STORIES)
    try:
        loader = yaml.SafeLoader(path.read_bytes().decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{path}: is empty; a story needs scenes with prompt and seconds.")
        story = _fields(path, loader, node, STORY, "the story")
        scenes = _scenes(path, loader, node)
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; a story is YAML.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise UserError(f"{where}: is not YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {str(error).splitlines()[0]}.") from None
    own = story.pop("context", _Value(0, None))
    if own.value is not None:
        check_context(spec, own.value, f"{path}:{own.line}: context")
        context = own.value
    found = [_shot(path, number, story, scene) for number, scene in enumerate(scenes, 1)]
    shots = [shot if given else dataclasses.replace(shot, seed=seed) for shot, given in found]
    return Storyboard(shots, context, own_seeds=all(given for _, given in found))


def _fields(path, loader, node, checks: _Checks, what) -> dict[str, _Value]:
    """Key -> (line, value) of a mapping whose keys and values are as `checks` says."""
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path}:{line}: {what} must be keys with values, such as 'seconds: 3'.")
    loader.flatten_mapping(node)  # resolves <<: *anchor
    fields: dict[str, _Value] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value)
        if key not in checks:
            hint = f"; keys are {', '.join(checks)}{did_you_mean(key, checks)}."
            if key in SCENE:
                hint = "; it belongs to a scene."
            raise UserError(f"{path}:{line}: {what} has no key {key!r}{hint}")
        # A key from a merged anchor is further up in the file and may be overridden.
        if key in fields and fields[key].line > node.start_mark.line:
            raise UserError(f"{path}:{line}: {key} was already given in line {fields[key].line}.")
        if key == "scenes":
            continue
        value = loader.construct_object(value_node, deep=True)
        wrong = checks[key](value)
        if wrong:
            raise UserError(f"{path}:{line}: {key}={value!r} {wrong}.")
        fields[key] = _Value(line, value)
    return fields


def _scenes(path, loader, node):
    """The fields of every scene."""
    nodes = [value for key, value in node.value if key.value == "scenes"]
    if not nodes or not isinstance(nodes[-1], yaml.SequenceNode) or not nodes[-1].value:
        raise UserError(f"{path}: scenes must be a list of at least one, each '- prompt: ...'.")
    return [
        _fields(path, loader, scene, SCENE, f"scene {number}")
        for number, scene in enumerate(nodes[-1].value, 1)
    ]


def _shot(path, number, defaults, scene) -> tuple[Shot, bool]:
    """Scene `number` (from 1), its own fields before the `defaults`; whether these give a seed."""
    fields = {key: field.value for key, field in (defaults | scene).items()}
    for key in ("prompt", "seconds"):
        if key not in fields:
            raise UserError(f"{path}: scene {number} has no {key}.")
    image = None
    if fields.get("image") is not None:
        line, name = scene["image"]
        image = path.parent / name
        if not paths.is_file(image):
            raise UserError(f"{path}:{line}: image {image}: no such file.")
        if "cut" in scene and scene["cut"].value == "morph":
            raise UserError(
                f"{path}:{scene['cut'].line}: cut=morph must be hard: scene {number} starts from "
                "an image."
            )
    seed = fields.get("seed")
    shot = Shot(
        clean(fields["prompt"]),
        float(fields["seconds"]),
        cut=image is not None or fields.get("cut") == "hard",
        seed=seed or 0,
        image=image,
        sampler={key: fields[key] for key in SAMPLER if key in fields},
    )
    return shot, seed is not None
