"""What a user may choose about sampling: names, defaults and presets, checked before it starts."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from phenaki.errors import UserError
from phenaki.sampling.decode import RAMPS
from phenaki.sampling.schedules import SCHEDULES


class SamplingOptions(NamedTuple):
    """One way to sample; the first three have no default but the config's."""

    steps: int
    choice_temperature: float  # Gumbel noise on the choice of codes that stay
    guidance: float  # λ of (1 + λ) l_c - λ l_u
    guidance_schedule: str = "constant"  # or "linear": λ grows from step to step up to its value
    negative: str | Sequence[str | None] | None = None  # a text whose logits replace l_u
    temperature: float = 1.0  # of the codes themselves; a critic's sampling lets it fall to 0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    schedule: str = "cosine"  # of the share still masked
    critic: Any = None  # of `Phenaki.load_critic`
    critic_guidance: float = 0.0  # λ of the critic's own logits
    critic_noise: float = 1.0
    trace: bool = False  # keep every step's codes and scores


def resolve(config: ConfigDict, preset: str | None = None, **given) -> SamplingOptions:
    """The options `given`, then those of the named preset, then those of `config.sample`.

    None stands for "not given". Presets are those of `config.presets`.

    Raises:
        UserError: an unknown option, preset or schedule, or a value out of its range.
    """
    known = {
        name: value for name, value in config.sample.items() if name in SamplingOptions._fields
    }
    if preset is not None:
        presets = dict(config.get("presets", {}))
        known |= dict(_named("preset", preset, presets))
    for name in given:
        if name not in SamplingOptions._fields:
            every = ("preset", *SamplingOptions._fields)
            raise UserError(f"sampler option {name!r} is unknown; {_nearest(name, every)}")
    options = SamplingOptions(**known | {name: x for name, x in given.items() if x is not None})
    _named("schedule", options.schedule, SCHEDULES)
    _named("guidance_schedule", options.guidance_schedule, RAMPS)
    for name, least, most in (
        ("steps", 1, None),
        ("choice_temperature", 0, None),
        ("temperature", 0, None),
        ("top_k", 0, None),
        ("top_p", 0, 1),
        ("critic_noise", 0, None),
    ):
        value = getattr(options, name)
        if value < least:
            raise UserError(f"{name}={value} must be at least {least}.")
        if most is not None and value > most:
            raise UserError(f"{name}={value} must be at most {most}.")
    return options


def _named(option: str, name: str, table: Mapping[str, Any]):
    if name not in table:
        raise UserError(f"{option}={name!r} is unknown; {_nearest(name, table)}")
    return table[name]


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}."
