"""Line plots as inline SVG for an HTML page, drawn by matplotlib."""

import io
import re
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 300  # in the units of the SVG
# Colours by name: (on a light page, on a dark page).
COLOURS = {
    "ink": ("#1c2024", "#e4e7ea"),
    "paper": ("#ffffff", "#14171a"),
    "soft": ("#f0f2f4", "#20252a"),
    "line": ("#c9ced4", "#454c54"),
    "good": ("#147a3d", "#57c785"),
    "bad": ("#b3261e", "#ff8a80"),
}
# Colours of a curve's series, in turn.
SERIES = {
    "c0": ("#1f6fd0", "#6db1ff"),
    "c1": ("#d2601a", "#ffa05c"),
    "c2": ("#1a8a4c", "#5fd394"),
    "c3": ("#a33bb0", "#de8ee8"),
    "c4": ("#8a6d00", "#e0c04a"),
    "c5": ("#c22a55", "#ff86a5"),
}


def finite(label: str, xs: Any, ys: Any) -> np.ndarray:
    """The finite points [n 2] of a series, thinned to what a screen can show.

    Raises:
        ValueError: xs and ys differ in length.
    """
    if len(xs) != len(ys):
        raise ValueError(f"curve {label!r} has {len(xs)} values of x and {len(ys)} of y.")
    xy = np.stack([np.asarray(xs, float), np.asarray(ys, float)], axis=-1).reshape(-1, 2)
    xy = xy[np.isfinite(xy).all(-1)]
    return xy[np.unique(np.linspace(0, len(xy) - 1, 600).astype(int))] if len(xy) > 600 else xy


def draw(lines: list[np.ndarray], xlabel: str, ylabel: str) -> str:
    """The inner elements of an SVG, WIDTH x HEIGHT, with a line per series [n 2]; deterministic."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text: small, searchable, and in the page's font.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "report"}
    with matplotlib.rc_context(settings | {"font.family": ["DejaVu Sans"], "font.size": 12}):
        figure = Figure((WIDTH / 72, HEIGHT / 72), layout="constrained")
        axes = figure.subplots()
        # Nothing is clipped, so that the SVG has no url(...) to a clip path.
        axes.grid(axis="y", color=COLOURS["line"][0], clip_on=False)
        for index, xy in enumerate(lines):
            colour = SERIES[f"c{index % len(SERIES)}"][0]
            # A single point is a line without length, which round caps make a dot.
            xy, width = (np.repeat(xy, 2, axis=0), 6) if len(xy) == 1 else (xy, 1.8)
            axes.plot(*xy.T, colour, lw=width, solid_capstyle="round", clip_on=False)
        axes.set_xlabel(xlabel, parse_math=False)
        axes.set_ylabel(ylabel, parse_math=False)
        axes.margins(x=0)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    return _page_style(file.getvalue())


def _page_style(svg: str) -> str:
    """The figure of an SVG file for an HTML page: no ids, the page's font and colours."""
    inner = svg[svg.index("<g id=") : svg.rindex("</g>") + len("</g>")]
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)
    inner = re.sub(r"font-size: [^;]*; font-family: [^;]*; ", "", inner)
    inner = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), inner)
    for name, (light, _) in (COLOURS | SERIES).items():
        inner = inner.replace(light, f"var(--{name})")
    return re.sub(r"\s*\n\s*", " ", inner)
