"""Confusion matrices and clips as image bytes for a report."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from phenaki.io import media

Matrix = tuple[Sequence[str], Sequence[str], np.ndarray]  # asked, seen, counts


def confusion(matrices: Mapping[str, Matrix]) -> bytes:
    """A png of matrices side by side: rows asked for, columns seen.

    Shades are fractions of a row, numbers are counts.
    """
    side = 0.42  # inches per cell
    widths = [len(seen) + 2.5 for _, seen, _ in matrices.values()]
    height = max(len(asked) for asked, _, _ in matrices.values())
    figure = Figure((side * sum(widths), side * height + 1.1), dpi=130, layout="constrained")
    plots = figure.subplots(1, len(matrices), width_ratios=widths, squeeze=False)[0]
    for axes, (title, (asked, seen, counts)) in zip(plots, matrices.items(), strict=True):
        fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "white" if fraction[row, column] > 0.6 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(seen)), seen, rotation=40, ha="right", fontsize=8)
        axes.set_yticks(range(len(asked)), asked, fontsize=8)
        axes.set_ylabel("asked", fontsize=8)
        axes.set_xlabel("seen", fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def clip(video: np.ndarray, fps: float, scale: int = 3) -> bytes:
    """A gif of [f h w 3], or a png of one frame."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        if len(video) > 1:
            media.write_gif(path, video, fps, scale)
        else:
            media.write_png(path, video[0], scale)
        return path.read_bytes()


def side_by_side(*videos: np.ndarray) -> np.ndarray:
    """Clips [b f h w 3] of one size, left to right with a white gap."""
    gap = np.ones((*videos[0].shape[:3], 2, 3), np.float32)
    parts = [part for video in videos for part in (np.asarray(video, np.float32), gap)]
    return np.concatenate(parts[:-1], axis=3)
