"""Files of samples: sample_0.mp4, .gif and a sheet of frames .png; an image is .png and a sheet."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from phenaki.io import artifacts, media, outputs, paths, provenance
from phenaki.io.contact_sheet import contact_sheet
from phenaki.io.paths import PathLike

GIF_FRAMES = 240  # longer videos have no gif, which needs all frames in memory
_OWN = r"sample_\d+(\.mp4|\.gif|\.png|\.json|_sheet\.png)"


def write(
    directory: PathLike,
    videos: Sequence[Any] | np.ndarray,
    prompts: Sequence[str | None],
    fps: float | int,
    scale: int | None = None,
    facts: provenance.Facts | None = None,
) -> list[str]:
    """Writes `videos` [f h w 3] to `directory` and returns their names; removes those before.

    Files of an earlier call would look like samples of this one; what the folder's marker does not
    list is not of an earlier call and stays. `scale` enlarges pixels; None: to about 256. `facts`
    are how all were made (`phenaki.io.provenance`).

    Raises:
        UserError: there is another file of such a name.
    """
    scale = scale or media.scale_to_see(*videos[0].shape[1:3])
    directory = paths.path(directory)
    names = [f"sample_{number}" for number in range(len(videos))]
    files = [
        f"{name}{end}"
        for name, video in zip(names, videos, strict=True)
        for end in (*_suffixes(len(video)), *([] if facts is None else [".json"]))
    ]
    outputs.enlist(directory, files, replaced=_OWN)
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
            media.write_gif(directory / f"{name}.gif", video, fps, scale, own)
        media.write_png(directory / f"{name}.png", sheet, facts=own)
    return names


def _suffixes(frames: int) -> tuple[str, ...]:
    if frames == 1:
        return (".png", "_sheet.png")
    return (".mp4", ".gif", ".png") if frames <= GIF_FRAMES else (".mp4", ".png")
