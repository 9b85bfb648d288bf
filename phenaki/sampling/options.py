"""Sampling options: defaults, presets and checks."""

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from phenaki.errors import UserError, did_you_mean, one_of
from phenaki.io.clean_text import clean
from phenaki.sampling import orders
from phenaki.sampling.guidance import given_scale
from phenaki.sampling.networks import (
    BY_CRITIC,
    BY_STUDENT,
    STUDENT_CONTINUES,
    Critic,
    Student,
    check_student,
)
from phenaki.sampling.static import StaticOptions
from phenaki.sampling.views import CLIP
from phenaki.schema.rules import Flag, check
from phenaki.schema.sampling import OPTIONS

Whole = int | np.integer
Number = float | Whole | np.floating

EDGE = 1e-6  # by which a step's fraction may miss the end of an interval
# Options that came after the first caches of windows.
LATER = (
    "guidance_limit",
    "guidance_min_p",
    "guidance_interval",
    "min_p",
    "order",
    "calibrated",
    "student",
    "view",
)
CONTINUED = "continued"  # key of `Defaults`: options where a part of the clip is given


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """One way to sample; the first three options have no default but the model's."""

    steps: Whole
    choice_temperature: Number  # scale of the Gumbel noise on confidences, falling to 0
    guidance: Number  # λ of (1 + λ) l_c - λ l_u
    guidance_schedule: str = "constant"  # "linear": λ rises to its value; "falling": from it
    guidance_limit: Number = 0.0  # most that guidance adds to a log-probability; 0: no bound
    guidance_min_p: Number = 0.0  # guides codes this likely, against the likeliest; 0: all
    guidance_interval: Sequence[Number] = (0.0, 1.0)  # fractions of the steps, guided between
    negative: str | Sequence[str | None] | None = None  # a text whose logits replace l_u
    # Of the sampled tokens; several are a curve over the steps. With a critic it falls to 0.
    temperature: Number | Sequence[Number] = 1.0
    top_k: Whole = 0  # 0: all codes
    top_p: Number = 1.0
    min_p: Number = 0.0  # codes this likely, against the likeliest; 0: all
    order: str = "confidence"  # which tokens are kept, `phenaki.sampling.orders`
    calibrated: Sequence[Whole] = ()  # positions that order="calibrated" begins with
    view: str = CLIP  # what a step's pass sees, `phenaki.sampling.views`
    schedule: str = "cosine"  # of the masked fraction, `phenaki.sampling.schedules`
    critic: Critic | None = None
    critic_guidance: Number = 0.0  # λ of the critic's own logits
    critic_noise: Number = 1.0  # scale of the uniform noise on the critic's logits, falling to 0
    trace: bool = False  # return every step's tokens and scores
    student: Student | None = None  # draws in place of the MaskGIT, in a pass or two

    def __post_init__(self):
        for name, field in OPTIONS.items():
            check(name, getattr(self, name), field.rule)
        check("trace", self.trace, Flag())
        for name, kind in (("critic", Critic), ("student", Student)):
            given = getattr(self, name)
            if given is not None and not isinstance(given, kind):
                raise UserError(f"{name}={given!r}: must be what Phenaki.load_{name} returns.")
        orders.check(self.order, self.calibrated)
        if self.critic is not None and self.schedule == "late":
            # A critic may mask again what was kept: every step would begin from nothing.
            raise UserError(
                "schedule=late keeps no token with a critic before the last step; "
                "nearest is schedule=cosine."
            )
        if self.student is not None:
            check_student(self.critic, float(self.guidance), self.negative)

    def guided_steps(self) -> int:
        """How many of the steps `guidance_interval` holds."""
        start, stop = self.guidance_interval
        done = np.arange(1, int(self.steps) + 1) / int(self.steps)
        return int(((done > start + EDGE) & (done < stop + EDGE)).sum())

    def static(self) -> StaticOptions:
        """What is compiled in; hashable."""
        by_others = self.critic is not None or self.student is not None
        return StaticOptions(
            steps=int(self.steps),
            schedule=self.schedule,
            # λ = 0 needs no unconditional half of the batch.
            guided=float(self.guidance) != 0,
            guidance_schedule=self.guidance_schedule,
            bounded=float(self.guidance_limit) != 0 or float(self.guidance_min_p) != 0,
            sometimes=float(self.guidance) != 0 and tuple(self.guidance_interval) != (0, 1),
            narrowed=bool(self.top_k) or float(self.top_p) < 1,
            min_p=float(self.min_p) != 0,
            order=self.order,
            calibrated=tuple(int(place) for place in self.calibrated),
            critic=None if self.critic is None else self.critic.network,
            critic_guided=float(self.critic_guidance) != 0,
            trace=bool(self.trace),
            student=None if self.student is None else self.student.network,
            view=CLIP if self.order == orders.CONFIDENCE or by_others else self.view,
        )

    def traced(self) -> dict[str, Any]:
        """What may change from call to call without compiling."""
        start, stop = self.guidance_interval
        return {
            "guidance": float(self.guidance),
            "guidance_limit": float(self.guidance_limit) or math.inf,
            "guidance_min_p": float(self.guidance_min_p),
            "guidance_interval": (float(start), float(stop)),
            "choice_temperature": float(self.choice_temperature),
            "temperature": _curve(_several(self.temperature), int(self.steps)),
            "min_p": float(self.min_p),
            "top_k": int(self.top_k),
            "top_p": float(self.top_p),
            "critic_guidance": float(self.critic_guidance),
            "critic_noise": float(self.critic_noise),
        }

    def facts(self) -> dict[str, Any]:
        """Every option by name; those of `LATER` only where they differ from their default.

        A critic is its fingerprint. Hashes of options are a file format: a new option must not
        change those of earlier calls.
        """
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.critic is not None:
            facts["critic"] = self.critic.fingerprint
        if self.student is not None:
            facts["student"] = self.student.fingerprint
        own = {field.name: field.default for field in dataclasses.fields(self)}
        facts["guidance_interval"] = tuple(self.guidance_interval)  # stored configs have lists
        return {name: x for name, x in facts.items() if name not in LATER or x != own[name]}

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
            others = [name for name in NAMES if name.startswith("guidance_")]
            reasons |= dict.fromkeys(("negative", *others), "guidance is 0")
        elif not self.guided_steps():
            others = [name for name in NAMES if name.startswith("guidance")]
            within = f"guidance_interval={self.guidance_interval} holds no step of {self.steps}"
            reasons |= dict.fromkeys(("negative", *others), within)
        if self.steps == 1:
            reasons["guidance_schedule"] = "there is one step"
        if self.order != orders.CONFIDENCE:
            reasons["choice_temperature"] = f"order={self.order} chooses the tokens"
        else:
            reasons["view"] = "any token may be kept with order=confidence"
        if self.student is not None:
            reasons["view"] = "a student sees all of the clip"
        if self.critic is not None:
            by_critic = ("choice_temperature", "order", "view")
            reasons |= dict.fromkeys(by_critic, "a critic chooses the tokens")
        elif self.steps == 1:
            reasons["choice_temperature"] = "one step keeps all tokens"
        if self.critic is None:
            options = ("critic_guidance", "critic_noise")
            reasons |= dict.fromkeys(options, "there is no critic")
        return {name: reason for name, reason in reasons.items() if name in given}


def _several(value: Number | Sequence[Number]) -> list[float]:
    return [float(x) for x in np.atleast_1d(np.asarray(value, float))]


def _curve(values: Sequence[float], steps: int) -> Float[np.ndarray, " i"]:
    """`values` in equal distances over `steps` steps, with straight lines between them."""
    places = np.linspace(0, 1, len(values)) if len(values) > 1 else np.zeros(1)
    return np.interp(np.linspace(0, 1, steps), places, values).astype(np.float32)


NAMES = tuple(field.name for field in dataclasses.fields(SamplingOptions))


@dataclasses.dataclass(frozen=True)
class Defaults:
    """A model's own options, and named presets of options (docs/paper.md#presets).

    Both may have a mapping `CONTINUED`, which goes before the others where tokens of a clip are
    given: in every window of a story but the first. None there is no other option.
    """

    sample: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def resolve(
    defaults: Defaults, preset: str | None = None, continues: bool = False, **given: Any
) -> SamplingOptions:
    """The options `given`, then those of the named preset, then the model's own.

    None stands for "not given". `defaults.sample` may have other keys, which are ignored. A call
    that `continues` has tokens that are given, see `CONTINUED`. With a critic, `BY_CRITIC` takes
    the place of a few-pass sampler of preset or model, and one under `CONTINUED` is ignored. With a
    student, `BY_STUDENT` takes the place of all of the model's.
    `guidance_scale`, as other tools count, is taken as `guidance` of 1 less, which is logged.

    Raises:
        UserError: an unknown option, preset or schedule, or a value out of its range.
    """
    given = given_scale(given)
    for name in given:
        if name not in NAMES:
            known = ("preset", *NAMES)
            raise UserError(
                f"sampling option {name!r} must be one of {', '.join(known)}"
                f"{did_you_mean(name, known)}."
            )
    options = {**defaults.sample}
    if preset is not None:
        options |= one_of("preset", preset, defaults.presets)
    later = {name: x for name, x in (options.get(CONTINUED) or {}).items() if x is not None}
    given = {name: x for name, x in given.items() if x is not None}
    by_critic = "critic" in given
    if "student" in given:
        options |= BY_STUDENT
        later = {**STUDENT_CONTINUES}
    if continues and not (by_critic and (_few_passes(options) or _few_passes(options | later))):
        options |= later
    if by_critic and _few_passes(options):
        options |= BY_CRITIC
    options = {name: value for name, value in options.items() if name in NAMES} | given
    negative = options.get("negative")
    if negative is not None:
        negative = negative.tolist() if isinstance(negative, np.ndarray) else negative
        check("negative", negative, OPTIONS["negative"].rule)
        one = isinstance(negative, str)
        options["negative"] = clean(negative) if one else [clean(text) for text in negative]
    chosen = SamplingOptions(**options)
    if "guidance_interval" in given and not chosen.guided_steps():
        start, steps = chosen.guidance_interval[0], int(chosen.steps)
        end = (math.floor(start * steps + EDGE) + 1) / steps
        nearest = (start, math.ceil(1000 * end - EDGE) / 1000)
        raise UserError(
            f"guidance_interval={chosen.guidance_interval} holds none of the {steps} steps; "
            f"nearest is {nearest}."
        )
    return chosen


def _few_passes(options: Mapping[str, Any]) -> bool:
    """Whether tokens are kept one a step or in a fixed order, as in docs/sampling.md#passes."""
    return (
        options.get("schedule") == "late"
        or options.get("order", orders.CONFIDENCE) != orders.CONFIDENCE
    )


def facts(defaults: Defaults, **given: Any) -> dict[str, Any]:
    """The facts of a call's options, as `resolve` finds them.

    Those that differ where a part of the clip is given are under `CONTINUED`.
    """
    chosen, later = (resolve(defaults, continues=case, **given) for case in (False, True))
    changed = [name for name in NAMES if getattr(later, name) != getattr(chosen, name)]
    own = {CONTINUED: {name: getattr(later, name) for name in changed}} if changed else {}
    return chosen.facts() | own
