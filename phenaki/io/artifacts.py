"""Files that a reader, also after a kill, finds complete or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` when the block ends without an error."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    os.replace(partial, path)


def write_json(path: str | Path, content: Any, **options: Any) -> None:
    """Writes `content` with a line's end; `options` are those of `json.dumps`."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, **options) + "\n", "utf-8")
