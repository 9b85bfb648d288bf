"""What a long video loses from window to window: colour, sharpness, variety, and its seams."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from phenaki.features import vgg, weights

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # two stacks [n h w 3] -> [n]
LUMA = (0.2126, 0.7152, 0.0722)  # BT.709
LPIPS = ("vgg16", "lpips_vgg")


def distance(directory: str | Path) -> tuple[Distance, str]:
    """(LPIPS, "lpips") where `directory` has its converted weights, else with random ones.

    Random features are a distance, too, but another one: "lpips_proxy".
    """
    there = all((Path(directory) / f"{name}.npz").is_file() for name in LPIPS)
    params = {
        name: weights.load(name, directory) if there else weights.random(name, seed=0)
        for name in LPIPS
    }
    network = jax.jit(vgg.lpips)
    return lambda x, y: np.asarray(network(params, x, y)), "lpips" if there else "lpips_proxy"


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
    """Figures of one window's new `frames`; `before` is the last frame of the window before.

    "seam" is the distance from `before` to the first new frame, None where there is none; "step"
    the mean distance of the neighbours within the window, which a seam should not exceed by much.
    "codes" is the share of the window's codes that are distinct.
    """
    shown = frames if before is None else np.concatenate([before[None], frames])
    steps = distance(shown[:-1], shown[1:])
    seam, steps = (None, steps) if before is None else (float(steps[0]), steps[1:])
    return {
        "mean": frames.mean((0, 1, 2)).tolist(),
        "std": frames.std((0, 1, 2)).tolist(),
        "sharpness": sharpness(frames),
        "codes": len(np.unique(tokens)) / tokens.size,
        "seam": seam,
        "step": float(np.mean(steps)) if len(steps) else None,
    }


def summary(lines: Sequence[dict[str, Any]], count: int = 10) -> dict[str, dict[str, float]]:
    """Means over the first and the last `count` windows (half of them, if there are fewer)."""
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
    path: str | Path,
    lines: Sequence[dict[str, Any]],
    seconds: Sequence[float],
    scenes: Sequence[float],
    label: str,
) -> None:
    """Draws the figures of windows that start at `seconds`; a gray line starts every scene."""
    figure = Figure(figsize=(9, 9), layout="constrained")
    axes = figure.subplots(5, sharex=True)
    for axis, name, title in ((axes[0], "mean", "colour, mean"), (axes[1], "std", "colour, std")):
        for channel, colour in enumerate(("tab:red", "tab:green", "tab:blue")):
            axis.plot(seconds, [line[name][channel] for line in lines], colour, lw=1)
        axis.set_title(title, loc="left", fontsize=9)
    for axis, name, title in (
        (axes[2], "sharpness", "sharpness, variance of the Laplacian"),
        (axes[3], "codes", "distinct codes, share of a window's"),
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
    figure.savefig(path, dpi=110)
