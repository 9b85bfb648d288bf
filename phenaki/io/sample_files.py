"""Files of samples: sample_0.mp4, .gif and a sheet of frames .png; an image is .png and a sheet."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from phenaki.io import artifacts, media, outputs, paths, provenance
from phenaki.io.contact_sheet import contact_sheet
from phenaki.io.paths import PathLike

GIF_FRAMES = 240  # longer videos have no gif, which needs all frames in memory
_NUMBERED = re.compile(r"sample_(\d+)\D.*")


def write(
    directory: PathLike,
    videos: Sequence[Any] | np.ndarray,
    prompts: Sequence[str | None],
    fps: float | int,
    scale: int | None = None,
    facts: provenance.Facts | None = None,
) -> list[str]:
    """Writes `videos` [f h w 3] to `directory` and returns their names.

    Numbers continue those that are there: samples of earlier calls stay. `scale` enlarges pixels;
    None: to about 256. `facts` are how all were made (`phenaki.io.provenance`).
    """
    scale = scale or media.scale_to_see(*videos[0].shape[1:3])
    directory = paths.path(directory)
    numbers = [int(found[1]) for found in map(_NUMBERED.fullmatch, paths.names(directory)) if found]
    first = max(numbers, default=-1) + 1
    names = [f"sample_{first + row}" for row in range(len(videos))]
    files = [
        f"{name}{end}"
        for name, video in zip(names, videos, strict=True)
        for end in (*_suffixes(len(video)), *([] if facts is None else [".json"]))
    ]
    outputs.enlist(directory, files)
    for row, (name, video, prompt) in enumerate(zip(names, videos, prompts, strict=True)):
        sheet = contact_sheet([video], [prompt])
        own = None if facts is None else {"prompt": prompt, "row": row, **facts}
        if own is not None:
            with artifacts.atomic(directory / f"{name}.json") as partial:
                partial.write_text(provenance.text(own), encoding="utf-8")
        if len(video) == 1:
            media.write_png(directory / f"{name}.png", video[0], scale, own)
            media.write_png(directory / f"{name}_sheet.png", sheet, facts=own)
            continue
        media.write_mp4(directory / f"{name}.mp4", video, fps, scale, own)
        if len(video) <= GIF_FRAMES:
            media.write_gif(directory / f"{name}.gif", *media.gif_frames(video, fps), scale, own)
        media.write_png(directory / f"{name}.png", sheet, facts=own)
    return names


def _suffixes(frames: int) -> tuple[str, ...]:
    if frames == 1:
        return (".png", "_sheet.png")
    return (".mp4", ".gif", ".png") if frames <= GIF_FRAMES else (".mp4", ".png")
