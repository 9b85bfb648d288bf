"""The report of a prepared data set: what was found, written and skipped, with reasons."""

import collections
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from phenaki.data.prepare.items import Inventory, Skipped
from phenaki.data.prepare.spool import ItemResult

REPORT = "report"  # .json and .txt
SKIPPED_LOG = "dead_letters.jsonl"  # a line for everything that was skipped
MAX_NAMED = 1000  # entries of that log that the report repeats


class IngestReport:
    """Counts the results of all items, and logs everything that is skipped.

    Args:
        log: a line of JSON is written per entry: {"file": ..., "reason": ...} for an item without
            clips; {"name": ..., "reason": ...} for a missing caption, or for what is not an item.
    """

    def __init__(self, log: TextIO):
        self._log = log
        self._counts: collections.Counter[str] = collections.Counter()
        self._reasons: collections.Counter[str] = collections.Counter()
        self._skipped: list[dict[str, str]] = []
        self._problems: list[dict[str, str]] = []

    def item(self, result: ItemResult, reason: str | None) -> None:
        """Counts an item whose clips are used, or skipped for `reason`."""
        self._counts["found"] += 1
        if reason is None:
            self._counts["read"] += 1
            self._counts[f"{result.kind}s"] += 1
            self._counts["captioned"] += result.captioned
            self._counts["static"] += result.static
            self._counts["slow"] += result.slow
        else:
            self._counts["skipped"] += 1
            self._reasons[category(reason)] += 1
            self._write({"file": result.key, "reason": reason}, self._skipped)

    def problem(self, skipped: Skipped) -> None:
        """Counts a missing caption, or what is not an item."""
        self._counts["problems"] += 1
        self._write({"name": skipped.name, "reason": skipped.reason}, self._problems)

    def unused(self, skipped: Skipped) -> None:
        """Logs a file that is no item and no caption; `Inventory.other` counts most of them."""
        self._write({"name": skipped.name, "reason": skipped.reason}, [])

    def _write(self, entry: dict[str, str], named: list[dict[str, str]]) -> None:
        if len(named) < MAX_NAMED:
            named.append(entry)
        self._log.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def report(
        self, options: dict, found: Inventory, clips: Mapping[str, int], seconds: float
    ) -> dict:
        """The content of report.json.

        Every item of the input is either read or in `SKIPPED_LOG`. `reasons` counts the skipped
        items by category; `skipped` and `problems` repeat the beginning of the log.
        """
        names = ("found", "read", "videos", "images", "captioned", "skipped", "problems")
        return {
            "options": options,
            "captions": found.layout,
            "notes": list(found.notes),
            "files": {name: self._counts[name] for name in names} | {"other": found.other},
            "clips": dict(sorted(clips.items())),
            "static_clips": self._counts["static"],
            "slow_clips": self._counts["slow"],
            "reasons": dict(sorted(self._reasons.items())),
            "skipped": self._skipped,
            "problems": self._problems,
            "seconds": round(seconds, 1),
        }


def add_problems(summary: dict, found: Sequence[Skipped], directory: Path) -> None:
    """Adds to the report and the log in `directory` what the call that made them did not see."""
    entries = [{"name": skipped.name, "reason": skipped.reason} for skipped in found]
    summary["files"]["problems"] += len(entries)
    summary["problems"] = entries + summary["problems"]
    with (directory / SKIPPED_LOG).open("a", encoding="utf-8") as log:
        log.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def category(reason: str | None) -> str:
    """too short: 3 frames at 8 fps -> too short; not readable after 7 frames -> not readable."""
    head = re.split(r":| after | at ", reason or "", maxsplit=1)[0]
    return re.sub(r"\d[\d.x ]*", "N ", head).strip()


def save(content: dict, directory: Path) -> None:
    """Writes report.json and report.txt."""
    whole = json.dumps(content, indent=2, ensure_ascii=False)
    for name, body in (("json", whole), ("txt", text(content))):
        path = directory / f"{REPORT}.{name}"
        path.write_text(body + "\n", encoding="utf-8", errors="backslashreplace")


def text(content: dict, most: float | int = math.inf) -> str:
    """The report as text; at most `most` skipped files and problems are named."""
    files = content["files"]
    clips = ", ".join(f"{name} {count}" for name, count in content["clips"].items())
    lines = [
        f"captions: {content['captions']}; {files['captioned']} of {files['read']} files have one",
        *[f"note: {note}" for note in content["notes"]],
        f"files: {files['read']} read ({files['videos']} videos, {files['images']} images), "
        f"{files['skipped']} skipped, {files['other']} neither video nor image",
        f"clips: {clips}",
        *[f"near-static clips skipped: {n}" for n in [content["static_clips"]] if n],
        *[
            f"clips whose frames repeat: {n}, of sources with fewer than "
            f"{float(content['options']['fps']):g} frames a second"
            for n in [content.get("slow_clips")]
            if n
        ],
        f"seconds: {content['seconds']}",
    ]
    if content["reasons"]:
        counted = ", ".join(f"{name} {count}" for name, count in content["reasons"].items())
        lines.append(f"reasons: {counted}")
    for title, name in (("skipped", "file"), ("problems", "name")):
        entries, count = content[title], files[title]
        lines += [f"{title}: {count}"] * bool(count)
        shown = entries if most >= len(entries) else entries[: int(most)]
        lines += [f"  {entry[name]}: {entry['reason']}" for entry in shown]
        lines += [f"  ... and {count - len(shown)} more in {SKIPPED_LOG}"] * (count > len(shown))
    return "\n".join(lines)
