"""Three hundred hostile uses, by kind: outputs, writers, damage, values, ends, inputs.

python tests/campaigns/hostile_probes.py [KIND ...]

Every probe must end in one line that names what is wrong, or work; nothing that is not the
command's may change. Prints a line per kind; exits with 1 if a probe goes wrong.
"""

import collections
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import environment

# isort: split
sys.path.append(str(environment.ROOT / "tests"))
import hostile_inputs
import process_ends
import stored_inputs
import test_output_rule as rule
from absl import logging

from phenaki.errors import UserError
from phenaki.io import artifacts, outputs, owner

Probes = Iterator[tuple[str, Callable[[], str]]]  # name, and what is wrong or ""


def refused(action: Callable[[], object], *words: str) -> str:
    """What is wrong unless `action` raises a `UserError` of one line that has `words`."""
    try:
        with contextlib.redirect_stderr(open(os.devnull, "w")):
            action()
    except UserError as error:
        line = str(error)
        missing = [word for word in words if word not in line]
        return f"{line!r} does not have {missing}" if missing or "\n" in line else ""
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def unchanged(root: Path, action: Callable[[], str]) -> str:
    """What is wrong with `action`, or that something below `root` changed."""
    before = rule.contents(root)
    return action() or ("" if rule.contents(root) == before else "something changed")


def somebodys(root: Path) -> None:
    """Folders and files that no command wrote, one of every kind, and links."""
    for kind in outputs.KINDS:
        with outputs.claimed("x", root / "of" / kind, kind):
            pass
    for name, content in {
        "mine/thesis.txt": "mine",
        "json/config.json": '{"mine": 1}',
        "in/data/a.png": "mine",
        "in/file.csv": "file,caption",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "to_mine").symlink_to(root / "mine")
    (root / "loop").symlink_to(root / "loop")
    (root / "link").symlink_to(root / "in")


def output_probes(root: Path) -> Probes:
    """Folders that are somebody's, and inputs and outputs that contain each other."""
    somebodys(root)
    for name, (flag, kind, inputs) in rule.FOLDERS.items():
        another = next(other for other in outputs.KINDS if other != kind)
        for place in ("mine", "to_mine", "json", "in/file.csv", f"of/{another}", "loop"):
            given = [*rule.flags_of(name, root), f"--{flag}={root / place}"]
            yield (
                f"{name} --{flag}={place}",
                lambda name=name, given=given: unchanged(
                    root, lambda: refused(lambda: rule.call(name, *given))
                ),
            )
        for source, *rest in inputs[:2]:
            for place, word in (("link", "be"), ("in/out", "inside")):
                given = [*rest, f"--{source}={root / 'in'}", f"--{flag}={root / place}"]
                yield (
                    f"{name} --{source} --{flag}={place}",
                    lambda name=name, given=given, word=word: unchanged(
                        root, lambda: refused(lambda: rule.call(name, *given), word)
                    ),
                )


def writer_probes(root: Path) -> Probes:
    """A second writer in every kind of output, and files that two write at once."""

    def second(kind: str) -> str:
        with outputs.claimed("output", root / kind, kind):
            (root / kind / "work").write_text("of the first")
            return unchanged(
                root, lambda: refused(lambda: _take(root / kind, kind), str(os.getpid()), "host")
            )

    def dead(kind: str) -> str:
        (root / kind).mkdir(exist_ok=True)
        content = {"host": os.uname().nodename, "pid": 2**22 + 7, "system": owner._system()}
        artifacts.write_json(root / kind / owner.OWNER, content)
        _take(root / kind, kind)
        return "" if not (root / kind / owner.OWNER).exists() else "the lease is left"

    def at_once() -> str:
        with artifacts.atomic(root / "a.json") as partial:
            partial.write_text("first")
            artifacts.write_json(root / "a.json", "second")
        return "" if (root / "a.json").read_text() == "first" else "not the last one"

    for kind in outputs.KINDS:
        yield f"two write {kind}", lambda kind=kind: second(kind)
        yield f"a killed one wrote {kind} before", lambda kind=kind: dead(f"{kind}")
    yield "two write one file", at_once


def _take(folder: Path, kind: str) -> None:
    with outputs.claimed("output", folder, kind):
        pass


def damage_probes(root: Path) -> Probes:
    """Damaged files of every kind that is read as numbers."""
    for name in stored_inputs.READERS:
        found = stored_inputs.campaign(name, root / name, 4, seed=11)
        for number in range(4):

            def one(found=found) -> str:
                how, verdict, details = next(found)
                return f"{how}: {details}" if verdict == "wrong" else ""

            yield f"{name} {number}", one


def value_probes(root: Path) -> Probes:
    """Values that cannot be meant, on command lines and in Python."""
    del root
    for name, action, words in hostile_inputs.values():
        yield name, lambda action=action, words=words: refused(action, *words)


def input_probes(root: Path) -> Probes:
    """Folders of media with something odd in them: it is skipped and reported."""
    for name, make in hostile_inputs.FOLDERS.items():
        yield (
            name,
            lambda name=name, make=make: hostile_inputs.prepared(
                root / name.replace(" ", "_"), make
            ),
        )


def end_probes(root: Path) -> Probes:
    """Signals at any moment, outputs without a reader, machines that lack something."""
    yield from process_ends.probes(root)


KINDS: dict[str, Callable[[Path], Probes]] = {
    "outputs": output_probes,
    "writers": writer_probes,
    "damage": damage_probes,
    "values": value_probes,
    "inputs": input_probes,
    "ends": end_probes,
}


def main(kinds: list[str]) -> int:
    """The exit code."""
    logging.set_verbosity(logging.FATAL)
    counts: collections.Counter[str] = collections.Counter()
    wrong = 0
    for kind in kinds or KINDS:
        with tempfile.TemporaryDirectory() as work:
            for name, probe in KINDS[kind](Path(work)):
                counts[kind] += 1
                if found := probe():
                    wrong += 1
                    print(f"  {kind}, {name}: {' '.join(found.split())[:300]}", flush=True)
        print(f"{kind}: {counts[kind]} probes", flush=True)
    print(f"{counts.total()} probes, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))
