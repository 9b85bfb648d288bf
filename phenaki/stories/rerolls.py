"""New seeds for single scenes of a story, recorded in rerolls.json.

The file maps the digest of a scene to how often it was rerolled. A digest is that of the prompts
and seeds from the last hard cut to the scene: a change after it, or before the cut, keeps the
reroll, and another story has other digests.
"""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

from phenaki.errors import UserError
from phenaki.io.artifacts import parsed, write_json
from phenaki.io.clean_text import clean
from phenaki.io.paths import AnyPath
from phenaki.stories.storyboard import Shot


def digests(shots: Sequence[Shot]) -> list[str]:
    """What each shot's rerolls are recorded under; equal shots are numbered."""
    result = []
    seen: dict[str, int] = collections.Counter()
    before: list = []
    for number, shot in enumerate(shots):
        if shot.cut or number == 0:
            before = []
        before.append([clean(shot.prompt), shot.seed])
        text = json.dumps(before)
        seen[text] += 1
        digest = hashlib.sha256(f"{text} {seen[text]}".encode())
        result.append(digest.hexdigest()[:16])
    return result


def reroll(shots: Sequence[Shot], counts: Mapping[str, int]) -> list[Shot]:
    """`shots` in which that of a digest in `counts` has the seed of its so-many-th reroll."""
    result = []
    for shot, digest in zip(shots, digests(shots), strict=True):
        if counts.get(digest):
            new = hashlib.sha256(f"{digest} {counts[digest]}".encode()).digest()
            shot = dataclasses.replace(shot, seed=int.from_bytes(new[:8], "big"))
        result.append(shot)
    return result


def read(path: AnyPath) -> dict[str, int]:
    """Digest -> count of the file `path`, empty if there is none.

    Raises:
        UserError: it is no file of rerolls.
    """
    try:
        counts = parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        counts = None
    whole = isinstance(counts, dict) and all(type(count) is int for count in counts.values())
    if not whole:
        raise UserError(f"{path}: is no file of rerolls; remove it to start without rerolls.")
    return counts


def record(path: AnyPath, shots: Sequence[Shot], number: int) -> None:
    """Adds a reroll of shot `number` (from 1) to the file.

    Raises:
        UserError: there is no such shot.
    """
    if number > len(shots):
        raise UserError(f"--reroll={number}: the story has {len(shots)} scenes.")
    digest = digests(shots)[number - 1]
    counts = read(path)
    write_json(path, counts | {digest: counts.get(digest, 0) + 1})


def notes(path: AnyPath, shots: Sequence[Shot]) -> list[str]:
    """A sentence if the file has rerolls that are not of these shots."""
    others = read(path).keys() - set(digests(shots))
    if not others:
        return []
    old = ", or are of a version that did not record the story" if _numbers(others) else ""
    return [
        f"{path}: {len(others)} rerolled scenes are not of this story{old}; not applied. "
        "Give --reroll again for those that are."
    ]


def _numbers(keys) -> bool:
    return any(key.isdigit() and len(key) < 16 for key in keys)
