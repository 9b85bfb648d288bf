"""Whether what is loaded is compared with its checksums (--no_verify), and checksums of JSON."""

import contextlib
import contextvars
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from phenaki.errors import UserError
from phenaki.io.paths import AnyPath

_VERIFIED = contextvars.ContextVar("verified", default=True)


@contextlib.contextmanager
def unverified() -> Iterator[None]:
    """Within the block what is loaded is not compared with its checksums: --no_verify."""
    token = _VERIFIED.set(False)
    try:
        yield
    finally:
        _VERIFIED.reset(token)


def verified() -> bool:
    """Whether what is loaded is to be compared with its checksums."""
    return _VERIFIED.get()


def facts_sum(facts: Mapping[str, Any]) -> int:
    """The checksum of what is stored as JSON."""
    plain = json.loads(json.dumps(facts))
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def signed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`facts` with "sums", which has their checksum."""
    return {**facts, "sums": {"facts": facts_sum(facts)}}


def damaged(file: AnyPath | str, remedy: str = "copy it again") -> UserError:
    """The error of a file that is not what its checksum says."""
    return UserError(
        f"{file}: is damaged, or was edited: its checksum is another one; {remedy}, or give "
        "--no_verify."
    )


def check_facts(
    file: AnyPath, content: Mapping[str, Any], remedy: str = "copy it again"
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """(facts, sums) of the `content` of a JSON `file`; one of an earlier version has no sums.

    Raises:
        UserError: the checksum of the facts is another one.
    """
    facts = dict(content)
    sums = facts.pop("sums", {})
    known = sums.get("facts") if isinstance(sums, dict) else None
    if known is not None and verified() and known != facts_sum(facts):
        raise damaged(file, remedy)
    return facts, sums if isinstance(sums, dict) else {}
