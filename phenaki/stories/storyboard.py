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

A scene may have `frames` instead of `seconds`, and a `context` of its own. At the top, every key of
a scene but `prompt` and `image` is a default for all scenes. A scene's
`null` switches that off: the model's own value applies, for `seed` that of the call.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from phenaki.errors import UserError, did_you_mean
from phenaki.io import paths, shipped
from phenaki.io.clean_text import clean
from phenaki.io.paths import AnyPath, PathLike
from phenaki.sampling.windows import Scene, check_context
from phenaki.schema.rules import OrNone, Rule, Text, check
from phenaki.schema.sampling import CONTEXT, OPTIONS, SCENE
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


# Sampling options that a storyboard may set, by the same names.
SAMPLER: Mapping[str, Rule] = {
    "preset": Text(),
    **{
        name: field.rule
        for name, field in OPTIONS.items()
        if name not in ("calibrated", "critic_guidance", "critic_noise")
    },
    "negative": Text(empty=True),  # a scene is one sample
}
# At the top and in a scene, null switches a default off.
COMMON: Mapping[str, Rule] = {
    **{name: SCENE[name].rule for name in ("seconds", "frames")},
    **{name: SCENE[name].rule for name in ("seed", "cut")},
    **{name: OrNone(rule) for name, rule in SAMPLER.items()},
}
SHOT: Mapping[str, Rule] = {
    **{name: SCENE[name].rule for name in ("prompt", "image")},
    "context": OrNone(CONTEXT.rule),
    **COMMON,
}
STORY: Mapping[str, Rule | None] = {"context": OrNone(CONTEXT.rule), "scenes": None, **COMMON}


class _Loader(yaml.SafeLoader):
    """Takes 1e2 for a number, as JSON and later YAML do; YAML 1.1 wants 1.0e+2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), "-+0123456789"
)


def read(path: PathLike, spec: VideoSpec, context: int, seed: int) -> Storyboard:
    """The storyboard in the file `path`; `context` and `seed` are its defaults.

    Raises:
        UserError: with file and line, the value and the rule; with the nearest key for an unknown
            one.
    """
    path = shipped.find(path, shipped.STORIES)
    try:
        loader = _Loader(path.read_bytes().decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{path}: is empty; a story needs scenes with prompt and seconds.")
        story = _fields(path, loader, node, STORY, "the story")
        scenes = _scenes(path, loader, node)
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply for a story.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; a story is YAML.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        if "another document" in str(error.problem):
            raise UserError(f"{where}: begins a second document; a story is one.") from None
        # A colon and a space begin a value, also in the middle of a prompt.
        colon = "mapping values are not allowed" in str(error.problem)
        quote = '; put a text that has ": " in quotes' if colon else ""
        raise UserError(f"{where}: is not YAML: {error.problem}{quote}.") from None
    except UserError:
        raise
    except (OverflowError, ValueError) as error:  # as of "\\UFFFFFFFF"; Python 3.13 has the latter
        raise UserError(f"{path}: is not YAML: {error}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {str(error).splitlines()[0]}.") from None
    own = story.pop("context", _Value(0, None))
    if own.value is not None:
        check_context(spec, own.value, f"{path}:{own.line}: context")
        context = own.value
    found = [_shot(path, spec, number, story, scene) for number, scene in enumerate(scenes, 1)]
    shots = [shot if given else dataclasses.replace(shot, seed=seed) for shot, given in found]
    return Storyboard(shots, context, own_seeds=all(given for _, given in found))


def _fields(path, loader, node, rules: Mapping[str, Rule | None], what) -> dict[str, _Value]:
    """Key -> (line, value) of a mapping whose keys and values obey `rules`."""
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        plain = isinstance(node, yaml.ScalarNode) and what != "the story"
        such = f"prompt: {node.value}" if plain else "seconds: 3"
        raise UserError(f"{path}:{line}: {what} must be keys with values, such as {such!r}.")
    loader.flatten_mapping(node)  # resolves <<: *anchor
    fields: dict[str, _Value] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value)
        if key not in rules:
            hint = f"; keys are {', '.join(rules)}{did_you_mean(key, rules)}."
            if key in SHOT:
                hint = "; it belongs to a scene."
            raise UserError(f"{path}:{line}: {what} has no key {key!r}{hint}")
        # A key from a merged anchor is further up in the file and may be overridden.
        if key in fields and fields[key].line > node.start_mark.line:
            raise UserError(f"{path}:{line}: {key} was already given in line {fields[key].line}.")
        rule = rules[key]
        if rule is None:
            fields[key] = _Value(line, None)
            continue
        try:
            value = loader.construct_object(value_node, deep=True)
        except yaml.YAMLError:
            raise
        except Exception as error:  # YAML takes 2022-13-01 for a date, 0x_ for a number
            text = str(getattr(value_node, "value", ""))[:60]
            raise UserError(
                f"{path}:{line}: {key}: {text} is no value of YAML ({error}); put a text in quotes."
            ) from None
        check(f"{path}:{line}: {key}", value, rule)
        fields[key] = _Value(line, value)
    return fields


def _scenes(path, loader, node):
    """The fields of every scene."""
    nodes = [value for key, value in node.value if key.value == "scenes"]
    if not nodes or not isinstance(nodes[-1], yaml.SequenceNode) or not nodes[-1].value:
        raise UserError(f"{path}: scenes must be a list of at least one, each '- prompt: ...'.")
    return [
        _fields(path, loader, scene, SHOT, f"scene {number}")
        for number, scene in enumerate(nodes[-1].value, 1)
    ]


def _seconds(path, spec, number, defaults, scene) -> float:
    """How long scene `number` lasts, by its own length before the default one."""
    for fields, whose in ((scene, f"scene {number}"), (defaults, "the story")):
        if "seconds" in fields and "frames" in fields:
            line = max(fields["seconds"].line, fields["frames"].line)
            raise UserError(f"{path}:{line}: {whose} has seconds and frames; give one of them.")
        if "frames" in fields:
            return fields["frames"].value / spec.fps
        if "seconds" in fields:
            return float(fields["seconds"].value)
    raise UserError(f"{path}: scene {number} has no seconds.")


def _shot(path, spec, number, defaults, scene) -> tuple[Shot, bool]:
    """Scene `number` (from 1), its own fields before the `defaults`; whether these give a seed."""
    fields = {key: field.value for key, field in (defaults | scene).items()}
    if "prompt" not in fields:
        raise UserError(f"{path}: scene {number} has no prompt.")
    seconds = _seconds(path, spec, number, defaults, scene)
    if fields.get("context") is not None:
        check_context(spec, fields["context"], f"{path}:{scene['context'].line}: context")
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
        seconds,
        cut=image is not None or fields.get("cut") == "hard",
        seed=seed or 0,
        image=image,
        sampler={key: fields[key] for key in SAMPLER if key in fields},
        context=fields.get("context"),
    )
    return shot, seed is not None
