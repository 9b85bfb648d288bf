"""Networks that a call may give besides the model, and the options that each then brings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from phenaki.errors import UserError
from phenaki.sampling import orders, views


class Critic(NamedTuple):
    """A token critic of one generator, such as `Phenaki.load_critic` gives."""

    network: Any
    params: Any
    fingerprint: str = ""  # of its parameters; "" for one that is not stored


class Student(NamedTuple):
    """A student of one model, such as `Phenaki.load_student` gives; it samples in its place."""

    network: Any
    params: Any
    fingerprint: str = ""  # of its parameters; "" for one that is not stored


# With a critic, instead of a model's own few-pass sampler: at its temperature of 0 and with all
# tokens masked again, every seed would give the same clip.
BY_CRITIC: Mapping[str, Any] = {
    "schedule": "cosine",
    "order": orders.CONFIDENCE,
    "temperature": 1.0,
    "min_p": 0.0,
    "view": views.CLIP,
    "steps": 12,
}
# With a student, instead of a model's own sampler: the likeliest tokens given z, which decides.
BY_STUDENT: Mapping[str, Any] = {
    "schedule": "cosine",
    "order": "middle",
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "guidance": 0.0,
    "view": views.CLIP,
    "steps": 1,
}
# The same where a part of the clip is given.
STUDENT_CONTINUES: Mapping[str, Any] = {"order": "frames"}


def check_student(critic: Critic | None, guidance: float, negative: Any) -> None:
    """Raises `UserError` for options that do not go together with a student."""
    if critic is not None:
        raise UserError("student and critic: a student's first tokens stay; give one of them.")
    given = f"negative={negative!r}" if negative else f"guidance={guidance:g}"
    if negative or guidance != 0:
        raise UserError(f"student and {given}: a student is not guided; leave one of them out.")
