"""Samples and scores of a model while it trains."""

from collections.abc import Sequence

import jax
import numpy as np

from phenaki.data.shapes.world import World
from phenaki.evaluation import alignment
from phenaki.io import media, paths
from phenaki.io.contact_sheet import contact_sheet
from phenaki.io.paths import PathLike
from phenaki.pipeline import Phenaki

SHOWN = 6  # samples per image


def write_samples(
    directory: PathLike, name: str, videos: np.ndarray, captions: Sequence[str | None], fps: float
) -> dict[str, np.ndarray]:
    """Writes `directory`/`name`.mp4 and .png of clips [b f h w 3] in [0, 1]; .png of images.

    Returns the image for TensorBoard by name. Every process calls it; the first one writes.
    """
    sheet = contact_sheet(list(videos), captions)
    if jax.process_index() == 0:
        directory = paths.path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if videos.shape[1] > 1:
            scale = media.scale_to_see(*videos.shape[2:4])
            media.write_mp4(directory / f"{name}.mp4", np.concatenate(list(videos)), fps, scale)
        media.write_png(directory / f"{name}.png", sheet)
    return {"samples": sheet}


def measure_alignment(
    model: Phenaki, world: World | None, count: int, **sampler
) -> dict[str, float]:
    """The scores of `alignment.measure` with `count` prompts per row, as metrics by name.

    {} where `count` is 0, for a model without text, or without a `world` of moving shapes: other
    data have no detector.
    """
    if world is None or not count or not model.has_text:
        return {}
    rows = alignment.measure(model, world, count, **sampler)
    return {
        f"alignment/{row}/{name}": value
        for row, values in rows.items()
        for name, value in values.items()
    }
