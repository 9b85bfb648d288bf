"""The manifest of a prepared data set: config, counts, and checksums of its files."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phenaki.data import records
from phenaki.io import artifacts, paths, verify

NAME = "manifest.json"


def write(directory: Path, written: Mapping[str, list[dict[str, Any]]], settings: dict) -> None:
    """Writes the manifest of a complete data set.

    It holds no times and no paths: the same input and settings give the same manifest.

    Args:
        settings: all that determines the bytes of the data set.
        written: the files of each split as {"name", "records", "bytes", "sha256"}; others are
            hashed here.
    """
    known = {
        file["name"]: {name: file[name] for name in ("bytes", "sha256")}
        for files in written.values()
        for file in files
    }
    settings_text = json.dumps(settings, sort_keys=True)
    manifest = {
        "config": settings,
        "config_sha256": hashlib.sha256(settings_text.encode()).hexdigest(),
        "records": {split: sum(f["records"] for f in files) for split, files in written.items()},
        "shards": {split: len(files) for split, files in written.items()},
        "files": {
            path.name: known.get(path.name) or artifacts.checksum(path)
            for path in sorted(directory.iterdir())
            if path.is_file()
        },
    }
    artifacts.write_json(directory / NAME, verify.signed(manifest), indent=2, ensure_ascii=False)


def camera(directory: str) -> str | None:
    """The camera of a data set whose source has several; None for others, or without a manifest."""
    settings = _read(directory).get("config", {})
    # Earlier versions named it in the layout only.
    found = re.match(r"TFDS bair_robot_pushing_small/.*?: media=(\w+)", settings.get("layout", ""))
    return settings.get("camera") or (found and found[1])


def _read(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, NAME)
    if not paths.is_file(path):
        return {}
    return verify.check_facts(paths.path(path), artifacts.read_dict(path))[0]


def check_facts(directory: str) -> None:
    """Compares what describes a data set with its manifest; one without a manifest passes.

    Raises:
        UserError: a JSON file has another checksum than when the data set was written.
    """
    if not verify.verified():
        return
    for name, entry in _read(directory).get("files", {}).items():
        path = os.path.join(directory, name)
        if not name.endswith(".json") or not paths.is_file(path):
            continue
        if artifacts.checksum(path) != entry:
            raise verify.damaged(path)


def checksums(directory: str) -> dict[str, str]:
    """SHA-256 by file name, of the files whose size is still that of the manifest; {} without one.

    The directory may be in a bucket.
    """
    known = _read(directory).get("files", {})
    sizes = records.parallel_map(lambda name: paths.size(os.path.join(directory, name)), known)
    return {
        name: entry["sha256"]
        for (name, entry), size in zip(known.items(), sizes, strict=True)
        if size == entry["bytes"]
    }
