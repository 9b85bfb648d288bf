"""How a film or image was made, in its file and next to it, so that it can be made again.

mp4: title is the prompt and comment the JSON of all facts; png: text chunks of these names; gif:
the JSON as its comment. Next to NAME.mp4 lies NAME.json.
"""

import json
from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]


def tags(facts: Facts | None) -> dict[str, str]:
    """Metadata of a file that was made as `facts` say; none without."""
    if not facts:
        return {}
    found = {"comment": json.dumps(facts, default=_plain)}
    return {"title": str(facts["prompt"]), **found} if facts.get("prompt") else found


def text(facts: Facts) -> str:
    """The content of the file next to it."""
    return json.dumps(facts, indent=1, default=_plain, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    return value.item()  # a scalar of NumPy
