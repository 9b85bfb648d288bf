"""Sampling options: defaults, presets, checks, and which of them are static under jit."""

import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from phenaki.errors import UserError, did_you_mean, one_of
from phenaki.io.clean_text import clean
from phenaki.sampling.guidance import RAMPS
from phenaki.sampling.schedules import SCHEDULES

Whole = int | np.integer
Number = float | Whole | np.floating

# Least and greatest value of an option; None is unbounded.
RANGES: Mapping[str, tuple[float, float | None]] = {
    "steps": (1, None),
    "choice_temperature": (0, None),
    "temperature": (0, None),
    "top_k": (0, None),
    "top_p": (0, 1),
    "critic_noise": (0, None),
}


class Critic(NamedTuple):
    """A token critic of one generator, such as `Phenaki.load_critic` gives."""

    network: Any
    params: Any


class StaticOptions(NamedTuple):
    """Options that are static under jit; everything else is traced."""

    steps: int
    schedule: str
    guided: bool
    guidance_schedule: str
    narrowed: bool  # by top_k or top_p
    critic: Any  # a network or None
    critic_guided: bool
    trace: bool


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """One way to sample; the first three options have no default but the model's."""

    steps: Whole
    choice_temperature: Number  # scale of the Gumbel noise on confidences, falling to 0
    guidance: Number  # λ of (1 + λ) l_c - λ l_u
    guidance_schedule: str = "constant"  # or "linear": λ grows over the steps up to its value
    negative: str | Sequence[str | None] | None = None  # a text whose logits replace l_u
    temperature: Number = 1.0  # of the sampled tokens; with a critic it falls to 0
    top_k: Whole = 0  # 0: all codes
    top_p: Number = 1.0
    schedule: str = "cosine"  # of the masked fraction, `phenaki.sampling.schedules`
    critic: Critic | None = None
    critic_guidance: Number = 0.0  # λ of the critic's own logits
    critic_noise: Number = 1.0  # scale of the uniform noise on the critic's logits, falling to 0
    trace: bool = False  # return every step's tokens and scores

    def __post_init__(self):
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("guidance_schedule", self.guidance_schedule, RAMPS)
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value < least:
                raise UserError(f"{name}={value} must be at least {least}.")
            if most is not None and value > most:
                raise UserError(f"{name}={value} must be at most {most}.")

    def static(self) -> StaticOptions:
        """What is compiled in; hashable."""
        return StaticOptions(
            steps=int(self.steps),
            schedule=self.schedule,
            # λ = 0 needs no unconditional half of the batch.
            guided=float(self.guidance) != 0,
            guidance_schedule=self.guidance_schedule,
            narrowed=bool(self.top_k) or float(self.top_p) < 1,
            critic=None if self.critic is None else self.critic.network,
            critic_guided=float(self.critic_guidance) != 0,
            trace=bool(self.trace),
        )

    def traced(self) -> dict[str, float]:
        """What may change from call to call without compiling."""
        return {
            "guidance": float(self.guidance),
            "choice_temperature": float(self.choice_temperature),
            "temperature": float(self.temperature),
            "top_k": int(self.top_k),
            "top_p": float(self.top_p),
            "critic_guidance": float(self.critic_guidance),
            "critic_noise": float(self.critic_noise),
        }

    def negatives(self, count: int) -> Sequence[str | None] | None:
        """The negative text of each of `count` samples; None where there is none, or no guidance.

        Raises:
            UserError: there are neither one nor `count` texts.
        """
        if not self.negative or float(self.guidance) == 0:
            return None
        texts = [self.negative] * count if isinstance(self.negative, str) else list(self.negative)
        if len(texts) != count:
            raise UserError(
                f"negative: {len(texts)} texts for {count} samples; give one text, or one each."
            )
        return texts

    def texts(self) -> list[str]:
        """The negative texts, as they were given."""
        given = [self.negative] if isinstance(self.negative, str) else self.negative or []
        return [text for text in given if text]

    def without_effect(self, given: Container[str], has_text: bool = True) -> dict[str, str]:
        """Option -> why it changes nothing, of those that were `given`."""
        reasons: dict[str, str] = {}
        if not has_text:
            reasons |= dict.fromkeys(("guidance", "guidance_schedule"), "the model has no text")
        if float(self.guidance) == 0:
            reasons |= dict.fromkeys(("negative", "guidance_schedule"), "guidance is 0")
        if self.steps == 1:
            reasons["guidance_schedule"] = "there is one step"
        if self.critic is not None:
            reasons["choice_temperature"] = "a critic chooses the tokens"
        elif self.steps == 1:
            reasons["choice_temperature"] = "one step keeps all tokens"
        if self.critic is None:
            options = ("critic_guidance", "critic_noise")
            reasons |= dict.fromkeys(options, "there is no critic")
        return {name: reason for name, reason in reasons.items() if name in given}


NAMES = tuple(field.name for field in dataclasses.fields(SamplingOptions))


@dataclasses.dataclass(frozen=True)
class Defaults:
    """A model's own options, and named presets of options (docs/paper.md#presets)."""

    sample: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def resolve(defaults: Defaults, preset: str | None = None, **given: Any) -> SamplingOptions:
    """The options `given`, then those of the named preset, then the model's own.

    None stands for "not given". `defaults.sample` may have other keys, which are ignored.

    Raises:
        UserError: an unknown option, preset or schedule, or a value out of its range.
    """
    for name in given:
        if name not in NAMES:
            known = ("preset", *NAMES)
            raise UserError(
                f"sampling option {name!r} must be one of {', '.join(known)}"
                f"{did_you_mean(name, known)}."
            )
    options = {name: value for name, value in defaults.sample.items() if name in NAMES}
    if preset is not None:
        options |= one_of("preset", preset, defaults.presets)
    options |= {name: x for name, x in given.items() if x is not None}
    negative = options.get("negative")
    if negative is not None:
        one = isinstance(negative, str)
        options["negative"] = clean(negative) if one else [clean(text) for text in negative]
    return SamplingOptions(**options)
