"""The directory of a training run: its config.json, and which run it may continue."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from phenaki.data import mixture_state
from phenaki.data.shapes.world import World
from phenaki.errors import UserError
from phenaki.io import outputs, paths, shared_folder
from phenaki.io.apart import resolved
from phenaki.io.checkpoint import has_checkpoint, is_run, load_config, save_config
from phenaki.io.checkpoint_steps import check_name
from phenaki.io.paths import AnyPath, PathLike

# A resumed run may change how it trains, but not what it trains.
FIXED = (
    "kind", "video", "tokenizer", "model", "text", "critic", "fingerprint", "generator", "seed",
)  # fmt: skip
# What the first step alone takes: a checkpoint has its result, such as an optimiser's moments.
INITIAL = ("start", "code_init", "optim.name")
# Sizes of the discriminator, of a run that had one and has one.
DISCRIMINATOR = ("gan.network", "gan.width")
# Kind -> the flag whose model gives these sections.
GIVEN_BY = {
    "maskgit": ("tokenizer", ("video", "tokenizer", "fingerprint")),
    "critic": (
        "generator", ("video", "tokenizer", "model", "text", "fingerprint", "generator"),
    ),
}  # fmt: skip


def inputs_of(data: Any, start: str = "") -> list[tuple[str, str]]:
    """(flag, path) of what config.data and config.start name."""
    found = [("config.start", start)]
    if data["source"] in mixture_state.SETS:
        sources = mixture_state.rates_of(data).values()
        found += [("config.data.sources", path) for of_kind in sources for path in of_kind]
    return found


def open_workdir(workdir: PathLike, inputs: Iterable[tuple[str, Any]] = ()) -> AnyPath:
    """`workdir`, made where there is none; every process of the job sees it.

    `inputs` are what the run reads, (flag, path) each; its own copy of a tokenizer is not apart.

    Raises:
        UserError: it has something else or contains an input, or is one that a host has for itself.
    """
    workdir = paths.path(workdir)
    if outputs.is_first():
        own = resolved("--workdir", workdir / "tokenizer")
        apart = [
            (flag, path) for flag, path in inputs if path and resolved(f"--{flag}", path) != own
        ]
        outputs.admit("workdir", workdir, "run", apart)
    check_name(workdir)
    shared_folder.check_seen("workdir", workdir)
    return workdir


def claim(workdir: PathLike, fields: Mapping[str, Any]) -> AnyPath:
    """Makes `workdir` the run of the plain config `fields`, or checks that it already is.

    The config.json of a run stays as it is: see `record`.

    Raises:
        UserError: it contains something else, or a run with another value of a field that cannot
            change; names the field, both values, and what to do.
    """
    workdir = paths.path(workdir)
    if is_run(workdir):
        before = load_config(workdir).to_dict()
        now = json.loads(json.dumps(fields))
        if differs := refusal(before, now, has_checkpoint(workdir)):
            raise UserError(f"{workdir}: holds a run with another {differs}, or a new --workdir.")
    elif (workdir / "checkpoints").exists():
        raise UserError(f"{workdir}: has checkpoints but no config.json; give a new --workdir.")
    workdir.mkdir(parents=True, exist_ok=True)
    if not is_run(workdir):
        record(workdir, fields)
    return workdir


def refusal(before: Mapping[str, Any], now: Mapping[str, Any], started: bool = True) -> str:
    """The first field of which a run keeps its value in `before`, but has another one in `now`.

    As "config.FIELD (VALUE, not VALUE); give ..."; "" where there is none. A run that has not
    `started` takes its first step anew.
    """
    for name in FIXED:
        # None is a model without text, or a config of an earlier version.
        if (before.get(name) is None) != (now.get(name) is None):
            values = ("None" if of.get(name) is None else "given" for of in (before, now))
            return f"config.{name} ({', not '.join(values)}); give the run's own config"
    old, new = (flatten_dict(dict(fields), sep=".") for fields in (before, now))
    for fields in (old, new):
        fields.setdefault("optim.name", "adamw")  # before it could be chosen
    trained = [fields.get("loss.adversarial") for fields in (old, new)]
    discriminator = DISCRIMINATOR if started and all(trained) else ()
    for path in dict.fromkeys((*old, *new)):
        then, value = old.get(path), new.get(path)
        fixed = path.split(".")[0] in FIXED or path in discriminator
        # Without config.start a run resumes, too: it is not opened again.
        if then != value and (fixed or (started and path in INITIAL and value)):
            remedy = _remedy(now.get("kind"), path, then)
            return f"config.{path} ({then!r}, not {value!r}); give {remedy}"
    return ""


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for every field that `now` changes, of those that `before` has.

    Fields of a world that `before` lacks had their defaults.
    """
    old, new = (flatten_dict(dict(fields), sep=".") for fields in (before, now))
    world = {f"data.world.{field.name}": field.default for field in dataclasses.fields(World)}
    old = world | old
    return [
        f"config.{path} is {new[path]!r}, no longer {value!r}"
        for path, value in old.items()
        if path in new and _plain(new[path]) != _plain(value)
    ]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))  # a stored tuple is a list


def _remedy(kind: str | None, path: str, value: Any) -> str:
    """What a user gives so that the field `path` of a config of `kind` has `value`."""
    section = path.split(".")[0]
    for of, (flag, sections) in GIVEN_BY.items():
        if kind == of and section in sections:
            return f"the run's own --{flag}"
    return f"--config.{path}={value}"


def record(workdir: PathLike, fields: Mapping[str, Any]) -> None:
    """Writes config.json; every process reads it, the first one writes."""
    if jax.process_index() == 0:
        save_config(workdir, fields)
