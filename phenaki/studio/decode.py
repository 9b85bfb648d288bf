"""Decodes one upload in a process of its own, with limits: FILE, frames.npy, height, width, rate.

Prints what it found as JSON. A file that breaks its decoder ends this process alone.
"""

import json
import resource
import sys
from typing import Any

import numpy as np

from phenaki.data.prepare import video
from phenaki.io.images import UnreadableMedia

FRAMES = 240  # that are kept of an upload, from its start
SECONDS, BYTES = 30, 2**32  # of the processor, of memory


def _decode(source: str, target: str, height: int, width: int, fps: float) -> dict[str, Any]:
    frames: list[np.ndarray] = []
    size = (0, 0)
    try:
        for clip in video.clips(source, frames=1, fps=fps, height=height, width=width):
            frames.append(clip.video)
            size = clip.source_size
            if len(frames) == FRAMES:
                break
    except UnreadableMedia as error:
        return {"error": error.reason}
    np.save(target, np.concatenate(frames))
    shape = dict(frames=len(frames), height=height, width=width, fps=fps)
    return {**shape, "source_height": size[0], "source_width": size[1]}


def main() -> None:
    """Decodes within the limits."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    source, target, *numbers = sys.argv[1:]
    height, width = map(int, numbers[:2])
    told = _decode(source, target, height, width, float(numbers[2]))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
