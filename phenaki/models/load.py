"""Loads trained models: the config and the parameters of all networks that sampling needs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from phenaki.errors import UserError
from phenaki.io import checkpoint, hub, verify
from phenaki.io.paths import PathLike
from phenaki.models import factory, student
from phenaki.sampling.options import Critic, Student

STUDENT = "student"  # kind of its bundle, and the name of its network there


class Loaded(NamedTuple):
    """A whole model as it is stored."""

    config: ConfigDict
    params: dict[str, Any]  # by network
    is_foreign: bool = False  # without our checksums: other programs may have written it


def load_model(directory: PathLike) -> Loaded:
    """A bundle, or a MaskGIT run with its EMA parameters.

    Raises:
        UserError: `directory` has something else, or its tokenizer is not the one that the MaskGIT
            was trained with.
    """
    directory = hub.find(directory)
    if checkpoint.is_bundle(directory):
        params, config, facts = checkpoint.load_bundle(directory)
        if facts.get("kind") != "phenaki":
            kind = facts.get("kind", "bundle of no kind")
            raise UserError(f"{directory}: holds a {kind}, not a whole model.")
        for name in ("video", "tokenizer", "model", "text", "sample", "dtype", "attention"):
            if name not in config:
                raise UserError(
                    f"{directory}: its config is damaged (it has no {name}); copy it again."
                )
        ours = verify.verified() and checkpoint.is_signed(directory)
        return Loaded(config, params, is_foreign=not ours)
    maskgit, config, _ = checkpoint.load_run(directory)
    stored = config.to_dict()
    if stored["kind"] == "critic":
        raise UserError(f"{directory}: is a critic's run; give the run of its generator.")
    if stored["kind"] == "tokenizer":
        raise UserError(
            f"{directory}: is a tokenizer's run; sampling needs one of scripts/train_maskgit.py."
        )
    tokenizer, _, digest = checkpoint.load_tokenizer(directory / "tokenizer")
    if digest != stored["fingerprint"]:
        raise UserError(
            f"{directory}: was trained on the tokens of tokenizer {stored['fingerprint']}, but "
            f"{directory / 'tokenizer'} is {digest}."
        )
    params = {"tokenizer": tokenizer, "maskgit": maskgit}
    if stored["text"]:
        params["text"] = factory.text_params(config)
    return Loaded(config, params)


class Stored(NamedTuple):
    """What a place has: a whole model, a tokenizer, a critic or a student."""

    kind: str  # "phenaki", "tokenizer" or "critic"
    params: dict[str, Any]  # by network, float32
    config: ConfigDict
    facts: dict[str, Any]  # what else is known: step, command, seed

    @property
    def fingerprint(self) -> str:
        """Changes with any parameter of any network, or size of the tokenizer."""
        one = self.params[self.kind] if self.kind in self.params else self.params
        return checkpoint.fingerprint(one, self.config.to_dict())

    @property
    def vocabulary(self) -> str | None:
        """The SentencePiece file that its prompts need; None where they need none."""
        text = self.config.to_dict().get("text") or {}
        file = text.get("vocabulary", "")
        return file if file.endswith(".model") else None


def load_stored(directory: PathLike) -> Stored:
    """A bundle, a shared model, or the newest EMA parameters of any run, of every kind.

    Raises:
        UserError: there is none, or it is damaged.
    """
    directory = hub.find(directory)
    if checkpoint.is_bundle(directory):
        params, config, facts = checkpoint.load_bundle(directory)
        return Stored(facts.pop("kind", "tokenizer"), params, config, facts)
    params, config, step = checkpoint.load_run(directory)
    if config.kind != "maskgit":
        return Stored(config.kind, {config.kind: params}, config, {"step": step})
    config, params, _ = load_model(directory)
    return Stored("phenaki", params, config, {"step": step})


def _check_generator(directory, what, theirs, ours):
    if theirs != ours:
        raise UserError(
            f"{directory}: is a {what} of generator {theirs}, but this one is {ours}; give that "
            f"one, or train a {what} of this one. A run has another generator after every step: "
            "what phenaki export writes stays."
        )


def warn_unfinished(directory: PathLike, fields: Mapping[str, Any], what: str) -> None:
    """Logs that the `what` of a run which is not at its end will not be one of its later steps.

    `fields` are those of its config.
    """
    done = checkpoint.steps_done(directory)  # 0 of a bundle, also of one of the hub
    if 0 < done < (steps := fields["train"]["steps"]):
        logging.warning(
            "%s: is at step %d of %d; its %s will not work with later steps. If it is trained on, "
            "give what phenaki export writes of it instead.",
            directory, done, steps, what,
        )  # fmt: skip


def load_critic(directory: PathLike, generator: str) -> Critic:
    """The critic that scripts/train_critic.py trained for the generator of that fingerprint.

    Raises:
        UserError: `directory` has no critic, or another generator's.
    """
    params, config = checkpoint.load_critic(directory)
    _check_generator(directory, "critic", config.to_dict()["generator"], generator)
    digest = checkpoint.fingerprint(params, config.to_dict())
    network = factory.layer_by_layer(factory.critic(config))
    return Critic(network, jax.tree.map(jnp.asarray, params), digest)


def load_student(directory: PathLike, generator: str) -> Student:
    """The student that phenaki train-student made of the model of that fingerprint.

    Raises:
        UserError: `directory` has no student, or another model's.
    """
    directory = hub.find(directory)
    if not checkpoint.is_bundle(directory):
        raise UserError(f"{directory}: holds no student; phenaki train-student makes one.")
    networks, config, facts = checkpoint.load_bundle(directory)
    if facts.get("kind") != STUDENT:
        kind = facts.get("kind", "tokenizer")
        raise UserError(
            f"{directory}: holds a {kind}, no student; phenaki train-student makes one."
        )
    _check_generator(directory, "student", facts["generator"], generator)
    params = jax.tree.map(jnp.asarray, networks[STUDENT])
    digest = checkpoint.fingerprint(networks[STUDENT], config.to_dict())
    teacher = factory.layer_by_layer(factory.maskgit(config))
    return Student(student.of_teacher(teacher, **facts["sizes"]), params, digest)
