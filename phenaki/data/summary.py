"""The report of a prepared data set: what was found, written, left out and why, for all to read."""

import collections
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from phenaki.data import ingest, shards
from phenaki.data.raw import Sources

REPORT = "report"  # .json and .txt


def report(
    options: dict, found: Sources, done: Sequence[ingest.Done], made: shards.Plan, seconds: float
) -> dict:
    """The content of report.json.

    Every item of the input is either read or in `skipped`, the dead-letter list; `reasons` counts
    that list by kind.
    """
    outcomes = [outcome for part in done for outcome in part.outcomes]
    captioned = {outcome.key for outcome in outcomes if outcome.captioned}
    kinds = collections.Counter(split.split("_")[0] for split, _, _ in made.items.values())
    problems = [*found.problems, *(problem for part in done for problem in part.problems)]
    skipped = [{"file": outcome.key, "reason": outcome.reason} for outcome in made.left]
    used = sum(outcome.static for outcome in outcomes if outcome.key in made.items)
    return {
        "options": options,
        "captions": found.layout,
        "files": {
            "found": len(outcomes),
            "read": len(made.items),
            "videos": kinds["video"],
            "images": kinds["image"],
            "captioned": len(captioned & set(made.items)),
            "skipped": len(skipped),
            "other": found.other,
        },
        "clips": {split: len(places) for split, places in sorted(made.splits.items())},
        "static_clips": used,
        "reasons": dict(sorted(collections.Counter(kind(s["reason"]) for s in skipped).items())),
        "skipped": skipped,
        "problems": [{"name": p.name, "reason": p.reason} for p in problems],
        "seconds": round(seconds, 1),
    }


def kind(reason: str | None) -> str:
    """too short: 3 frames at 8 fps -> too short; not readable after 7 frames -> not readable."""
    head = re.split(r":| after | at ", reason or "", maxsplit=1)[0]
    return re.sub(r"\d[\d.x ]*", "N ", head).strip()


def save(content: dict, directory: Path) -> None:
    """Writes report.json and report.txt."""
    whole = json.dumps(content, indent=2, ensure_ascii=False)
    for name, body in (("json", whole), ("txt", text(content))):
        path = directory / f"{REPORT}.{name}"
        path.write_text(body + "\n", encoding="utf-8", errors="backslashreplace")


def text(content: dict, most: float = math.inf) -> str:
    """The report for people; at most `most` skipped files and problems are named."""
    files = content["files"]
    clips = ", ".join(f"{name} {count}" for name, count in content["clips"].items())
    lines = [
        f"captions: {content['captions']}; {files['captioned']} of {files['read']} files have one",
        f"files: {files['read']} read ({files['videos']} videos, {files['images']} stills), "
        f"{files['skipped']} skipped, {files['other']} neither video nor image",
        f"clips: {clips}",
        *[f"near-static clips left out: {n}" for n in [content["static_clips"]] if n],
        f"seconds: {content['seconds']}",
    ]
    if content["reasons"]:
        counted = ", ".join(f"{name} {count}" for name, count in content["reasons"].items())
        lines.append(f"reasons: {counted}")
    for title, name in (("skipped", "file"), ("problems", "name")):
        entries = content[title]
        lines += [f"{title}: {len(entries)}"] * bool(entries)
        shown = entries if most >= len(entries) else entries[: int(most)]
        lines += [f"  {entry[name]}: {entry['reason']}" for entry in shown]
        lines += [f"  ... and {len(entries) - len(shown)} more"] * (len(entries) > len(shown))
    return "\n".join(lines)
