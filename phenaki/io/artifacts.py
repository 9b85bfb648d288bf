"""Files that a reader, or a run after a kill, finds whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a place to write to, which takes `path`'s name once the block has ended well."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    os.replace(partial, path)


def write_json(path: str | Path, content: Any, **options: Any) -> None:
    """Writes `content` with a line's end; `options` are those of `json.dumps`."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, **options) + "\n", "utf-8")
