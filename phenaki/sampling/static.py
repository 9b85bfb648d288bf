"""What of a call's options is compiled into its program."""

from typing import Any, NamedTuple

from phenaki.sampling.views import CLIP, Views


class StaticOptions(NamedTuple):
    """Options that are static under jit; everything else is traced."""

    steps: int
    schedule: str
    guided: bool
    guidance_schedule: str
    bounded: bool  # guidance_limit or guidance_min_p
    sometimes: bool  # guided in a part of the steps
    narrowed: bool  # by top_k or top_p
    min_p: bool
    order: str
    calibrated: tuple[int, ...]
    critic: Any  # a network or None
    critic_guided: bool
    trace: bool
    student: Any = None  # a network or None
    view: str = CLIP
    views: Views | None = None  # of a call, `phenaki.sampling.sampler.with_views`
