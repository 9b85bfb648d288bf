"""Stored runs and bundles: parameters with their config, loaded as float32 numpy."""

import contextlib
import copy
import json
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from etils import epy
from ml_collections import ConfigDict

from phenaki.errors import UserError, bucket_reason
from phenaki.io import artifacts, failures, hub, outputs, paths, shared_model, stored_params, verify
from phenaki.io.artifacts import read_dict, write_json
from phenaki.io.checkpoint_manager import Checkpoints
from phenaki.io.checkpoint_steps import COMMITTED, check_name, complete_steps
from phenaki.io.checksums import digest
from phenaki.io.migrations import KINDS, SCHEMA, migrate, with_kind
from phenaki.io.paths import AnyPath, PathLike

with epy.lazy_imports():  # half a second, for what loads and stores only
    import orbax.checkpoint as ocp


def fingerprint(params: Any, sizes: Mapping[str, Any]) -> str:
    """16 hex digits that change with any parameter or any field of the tokenizer or the clips.

    `sizes` has the fields "tokenizer" and "video" of a plain config; others are ignored.
    """
    fields = {"tokenizer": sizes["tokenizer"], "video": sizes["video"]}
    return digest(params, json.dumps(fields, sort_keys=True).encode())


def save_bundle(
    directory: PathLike, params: dict[str, Any], fields: Mapping[str, Any], **facts
) -> None:
    """Writes `params` (one tree per network) and bundle.json, with the plain config `fields`.

    It replaces an existing bundle of its kind, and nothing else.

    Raises:
        UserError: there is something else in the folder; or a fact is no JSON.
    """
    check_name(directory)
    _check_facts(facts)
    content = _content(fields, facts)
    if outputs.is_first():
        check_replaced(directory, facts.get("kind"))
        outputs.admit("output", directory, "model")
        outputs.make("output", paths.path(directory))
        outputs.enlist(paths.path(directory), ["params", "bundle.json"], kind="model")
        # First of all it goes, last it comes: half of two bundles is none.
        (paths.path(directory) / "bundle.json").unlink(missing_ok=True)
    outputs.together("bundle begun")
    directory = paths.absolute(directory)
    try:
        with failures.quiet_ends(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(directory / "params", params, force=True)
    except Exception as error:  # the libraries raise anything on a full disk
        why = failures.reason(error)
        raise UserError(f"{directory}: cannot be written ({why}); there is no bundle.") from error
    content["sums"]["params"] = stored_params.tree_sums(params)
    if jax.process_index() == 0:
        # Orbax's has the absolute path, which says something of this machine to all who get a copy.
        (directory / "params" / COMMITTED).write_text("complete\n")
        write_json(directory / "bundle.json", content, indent=2)


def _check_facts(facts):
    for name, value in facts.items():
        if name in ("schema", "sums", "config"):
            raise UserError(f"{name}=: bundle.json has a {name} of its own; take another name.")
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise UserError(f"{name}={value!r}: must be a value of JSON.") from None


def check_replaced(directory: PathLike, kind: str | None) -> None:
    """Raises `UserError` if a bundle in an output folder is not of `kind`."""
    there = (artifacts.marked(paths.path(directory) / "bundle.json") or {}).get("kind", kind)
    if there != kind:
        raise UserError(
            f"--output={directory}: holds a {there}, which a {kind} does not replace; give a new "
            "or empty folder."
        )


def save_shared(
    directory: AnyPath,
    params: Mapping[str, Any],
    fields: Mapping[str, Any],
    vocabulary: AnyPath | None = None,
    **facts: Any,
) -> None:
    """Writes `params` (one tree per network) as a shared model, with the plain config `fields`.

    `vocabulary` is the file of config.text.vocabulary, which travels with the model.
    """
    files = shared_model.write(directory, params, vocabulary)
    content = _content(fields, {"format": shared_model.FORMAT, **facts, "files": files})
    write_json(directory / shared_model.CONFIG, content, indent=2)


def _content(fields: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    return verify.signed({"schema": SCHEMA, **facts, "config": with_kind(fields)})


def is_bundle(directory: AnyPath) -> bool:
    """Whether `directory` holds a bundle or a shared model."""
    return paths.is_file(directory / "bundle.json") or shared_model.is_one(directory)


def is_signed(directory: AnyPath) -> bool:
    """Whether a bundle or shared model has the checksums that phenaki writes."""
    return "sums" in read_dict(_description(directory))


def _description(directory: AnyPath) -> AnyPath:
    own = directory / "bundle.json"
    return own if paths.is_file(own) else directory / shared_model.CONFIG


def update_sample(directory: PathLike, options: Mapping[str, Any]) -> None:
    """Changes sampling options in the config of a bundle, and the checksum with it."""
    file = paths.absolute(directory) / "bundle.json"
    content = read_dict(file)
    sums = content.pop("sums", {})
    content["config"]["sample"] |= options
    if sums:
        content["sums"] = sums | {"facts": verify.facts_sum(content)}
    write_json(file, content, indent=2)


def load_bundle(directory: PathLike) -> tuple[dict[str, Any], ConfigDict, dict[str, Any]]:
    """(parameters as float32 numpy, config, other facts) of a bundle or a shared model.

    Raises:
        UserError: it is damaged, or of a newer version. One of an earlier version has no checksums.
    """
    directory = paths.absolute(directory)
    file = _description(directory)
    shared = file.name == shared_model.CONFIG
    if not paths.is_file(file):
        raise UserError(f"{directory}: is no model: it has no bundle.json; copy it again.")
    facts = read_dict(file)
    if "schema" not in facts:
        raise UserError(f"{file}: is no description of a bundle: it has no schema.")
    fields = migrate(copy.deepcopy(facts.get("config", {})), facts["schema"], directory)
    facts, sums = verify.check_facts(file, facts)
    known = {k: v for k, v in facts.items() if k not in ("schema", "config", "format", "files")}
    if shared:
        params = shared_model.read(directory, facts.get("files"))
        if shared_model.VOCABULARY in facts["files"]:
            fields["text"]["vocabulary"] = str(directory / shared_model.VOCABULARY)
        return params, ConfigDict(fields), known
    try:
        params = stored_params.load(directory / "params", sums.get("params"))
    except Exception as error:  # the libraries raise anything on a damaged file
        raise UserError(f"{directory}: is damaged ({_reason(error)}); copy it again.") from error
    return params, ConfigDict(fields), known


def _reason(error: Exception) -> str:
    """The first error in one line: Orbax raises others while it ends."""
    return bucket_reason(error) or " ".join(str(error).split())[:200] or type(error).__name__


def is_run(directory: PathLike) -> bool:
    """Whether `directory` contains a training run."""
    return paths.is_file(paths.path(directory) / "config.json")


def load_config(directory: PathLike) -> ConfigDict:
    """The config of a training run.

    Raises:
        UserError: it is damaged, or of a newer version. One of an earlier version has no checksum.
    """
    file = paths.path(directory) / "config.json"
    fields, _ = verify.check_facts(file, read_dict(file))
    return ConfigDict(migrate(fields, fields.pop("schema", 1), directory))


def takes_text(directory: PathLike) -> bool:
    """False for an unconditional model, in a bundle, shared model or run, by its config alone.

    Raises:
        UserError: there is none.
    """
    directory = hub.find(directory)
    facts = read_dict(directory / ("config.json" if is_run(directory) else "bundle.json"))
    fields = facts.get("config", facts)
    return "model" not in fields or fields.get("text") is not None


def save_config(directory: PathLike, fields: Mapping[str, Any]) -> None:
    """Makes `directory` a training run of the plain config `fields`."""
    content = verify.signed({"schema": SCHEMA, **with_kind(fields)})
    write_json(paths.path(directory) / "config.json", content, indent=2)


def has_checkpoint(directory: PathLike) -> bool:
    """Whether `directory` is a run to resume: one with a checkpoint."""
    return is_run(directory) and bool(complete_steps(paths.path(directory) / "checkpoints"))


def steps_done(directory: PathLike) -> int:
    """The step of a run's newest checkpoint; 0 where there is no run or no checkpoint yet."""
    if not is_run(directory):
        return 0
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        return checkpoints.latest or 0


def load_run(directory: PathLike) -> tuple[Any, ConfigDict, int]:
    """(averaged parameters as numpy, config, step) of a run's newest undamaged checkpoint.

    A damaged checkpoint is skipped with a warning, as training does; nothing is moved.

    Raises:
        UserError: `directory` is no training run, or has no checkpoint yet, or no undamaged one.
    """
    directory = paths.absolute(directory)  # Orbax refuses relative paths
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such directory; give a run's --workdir or a saved bundle."
        )
    if not is_run(directory):
        raise UserError(
            f"{directory}: is not a run (it has no config.json); give a training run's --workdir."
        )
    config = load_config(directory)
    steps = complete_steps(directory / "checkpoints")
    if not steps:
        raise UserError(f"{directory}: has no checkpoint yet; train until one is written.")
    reasons: dict[int, str] = {}
    for step in reversed(steps):
        try:
            average = stored_params.load_average(directory / "checkpoints" / str(step))
        except Exception as error:  # the libraries raise anything on a damaged file
            if why := failures.lack(error):
                raise UserError(
                    f"{directory}: the checkpoint of step {step} cannot be read ({why})."
                ) from error
            reasons[step] = _reason(error)
            continue
        for newer, reason in reasons.items():
            logging.warning(
                "%s: the checkpoint of step %d is damaged (%s); using that of step %d.",
                directory, newer, reason, step,
            )  # fmt: skip
        return average, config, step
    raise UserError(
        f"{directory}: has no undamaged checkpoint; that of step {steps[-1]}: {reasons[steps[-1]]}."
    )


def load_critic(directory: PathLike) -> tuple[Any, ConfigDict]:
    """(averaged parameters, config) of a critic's training run, bundle or shared model.

    Raises:
        UserError: `directory` has something else.
    """
    directory = hub.find(directory)
    if is_bundle(directory):
        networks, config, _ = load_bundle(directory)
        params = networks.get("critic")
    else:
        params, config, _ = load_run(directory)
    if config.kind != "critic":
        raise UserError(f"{directory}: is not a critic's run; {KINDS['critic']} trains one.")
    return params, config


def load_tokenizer(directory: PathLike) -> tuple[Any, ConfigDict, str]:
    """(parameters, config, fingerprint) of a tokenizer's run or bundle, or of a whole model's.

    Raises:
        UserError: `directory` is the run of a MaskGIT or of a critic.
    """
    directory = hub.find(directory)
    if is_bundle(directory):
        networks, config, facts = load_bundle(directory)
        if "tokenizer" not in networks:
            kind = facts.get("kind", "critic")
            raise UserError(f"{directory}: is a {kind}'s; give that of a tokenizer.")
        params = networks["tokenizer"]
    else:
        params, config, _ = load_run(directory)
        if config.kind == "maskgit":
            raise UserError(
                f"{directory}: is a MaskGIT run; its tokenizer is {directory}/tokenizer."
            )
        if config.kind != "tokenizer":
            raise UserError(f"{directory}: is a critic's run; give that of a tokenizer.")
    return params, config, fingerprint(params, config.to_dict())
