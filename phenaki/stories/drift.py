"""Statistics of a story's windows that show drift: colour, sharpness, distinct tokens, seams.

`phenaki.evaluation.metrics.long_video` defines drift, seam and step.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from phenaki.evaluation.metrics.long_video import Distance, seam_and_steps
from phenaki.features import vgg, weights
from phenaki.io import artifacts, paths
from phenaki.io.paths import PathLike

LUMA = (0.2126, 0.7152, 0.0722)  # BT.709
LPIPS = ("vgg16", "lpips_vgg")


def distance(directory: PathLike) -> tuple[Distance, str]:
    """(LPIPS, "lpips") where `directory` has its converted weights, else with random weights.

    Distances of random features do not compare with LPIPS, so those are called "lpips_proxy".
    """
    converted = all(paths.is_file(paths.path(directory) / f"{name}.npz") for name in LPIPS)
    params = {
        name: weights.load(name, directory) if converted else weights.random(name, seed=0)
        for name in LPIPS
    }
    of_pairs, of_neighbours = jax.jit(vgg.lpips), jax.jit(vgg.lpips_of_neighbours)

    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if len(x) > 1 and np.array_equal(x[1:], y[:-1]):
            return np.asarray(of_neighbours(params, np.concatenate([x, y[-1:]])))
        return np.asarray(of_pairs(params, x, y))

    return distances, "lpips" if converted else "lpips_proxy"


def sharpness(video: Float[np.ndarray, "f h w 3"]) -> float:
    """Variance of the Laplacian of the luma, over all inner pixels; 0 for a flat image."""
    y = video @ np.array(LUMA)
    inner = y[:, 1:-1, 1:-1]
    around = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
    return float((around - 4 * inner).var())


def measure(
    frames: Float[np.ndarray, "f h w 3"],
    tokens: Int[np.ndarray, "t m n"],
    before: Float[np.ndarray, "h w 3"] | None,
    distance: Distance,
) -> dict[str, Any]:
    """Statistics of one window's new `frames`; `before` is the last frame of the window before.

    "mean" and "std" are of each colour channel, "codes" is the fraction of the window's tokens that
    are distinct. "seam" and "step" (the mean step) are in units of `distance`; each is None where
    there is none.
    """
    seam, steps = seam_and_steps(frames, before, distance)
    return {
        "mean": frames.mean((0, 1, 2)).tolist(),
        "std": frames.std((0, 1, 2)).tolist(),
        "sharpness": sharpness(frames),
        "codes": len(np.unique(tokens)) / tokens.size,
        "seam": seam,
        "step": float(np.mean(steps)) if len(steps) else None,
    }


def summary(lines: Sequence[dict[str, Any]], count: int = 10) -> dict[str, dict[str, float]]:
    """Means over the first and the last `count` windows (at most half of the windows each).

    A statistic has drifted where its two means differ.
    """
    count = max(1, min(count, len(lines) // 2))
    result = {}
    for name in ("mean", "std", "sharpness", "codes", "seam", "step"):
        first, last = (
            [np.mean(line[name]) for line in part if line[name] is not None]
            for part in (lines[:count], lines[-count:])
        )
        if first and last:
            result[name] = {"first": float(np.mean(first)), "last": float(np.mean(last))}
    return result


def chart(
    path: PathLike,
    lines: Sequence[dict[str, Any]],
    seconds: Sequence[float],
    scenes: Sequence[float],
    label: str,
) -> None:
    """Draws the statistics of windows that start at `seconds`; a gray line starts every scene.

    `scenes` are the scenes' starts in seconds, `label` the title of the seams and steps.
    """
    figure = Figure(figsize=(9, 9), layout="constrained")
    axes = figure.subplots(5, sharex=True)
    for axis, name, title in ((axes[0], "mean", "colour, mean"), (axes[1], "std", "colour, std")):
        for channel, colour in enumerate(("tab:red", "tab:green", "tab:blue")):
            axis.plot(seconds, [line[name][channel] for line in lines], colour, lw=1)
        axis.set_title(title, loc="left", fontsize=9)
    for axis, name, title in (
        (axes[2], "sharpness", "sharpness, variance of the Laplacian"),
        (axes[3], "codes", "distinct tokens, fraction of a window's"),
    ):
        axis.plot(seconds, [line[name] for line in lines], "black", lw=1)
        axis.set_title(title, loc="left", fontsize=9)
    seams = [np.nan if line["seam"] is None else line["seam"] for line in lines]
    steps = [np.nan if line["step"] is None else line["step"] for line in lines]
    axes[4].plot(seconds, seams, "tab:red", lw=1, label="across the seam")
    axes[4].plot(seconds, steps, "black", lw=1, label="between neighbours within the window")
    axes[4].set_title(label, loc="left", fontsize=9)
    axes[4].legend(fontsize=8, frameon=False, ncols=2, loc="upper right")
    axes[4].set_xlabel("seconds of video")
    axes[4].margins(y=0.3)  # room for the legend
    for axis in axes:
        axis.set_ylim(0, None)
        axis.spines[["top", "right"]].set_visible(False)
        for start in scenes:
            axis.axvline(start, color="0.85", lw=0.8, zorder=0)
    with artifacts.atomic(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
