"""HTML page with the statistics of a data set: tables, histograms and contact sheets."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np

from phenaki.data.prepare import contact_sheet
from phenaki.data.prepare.inspect import SplitStatistics
from phenaki.io.paths import PathLike

_STYLE = """body{font:14px sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}
td,th{padding:2px 8px;text-align:left}svg{background:#f4f4f4}img{max-width:100%}.bad{color:#b00}"""
BINS = 24
TOP = 12  # sources and duplicates listed


def sentence(split: SplitStatistics) -> str:
    """Summarizes a split in one line."""
    captions = f"{len(split.tokens)} with captions of {_range(split.tokens)} tokens"
    line = f"{split.seen} of {split.stored} records, {captions}, {len(split.sources)} sources"
    return "; ".join([line, *split.warnings()])


def page(directory: PathLike, found: dict[str, SplitStatistics]) -> str:
    """Renders the page."""
    parts = [f"<h1>{html.escape(str(directory))}</h1>"]
    for name, split in found.items():
        parts.append(f"<h2>{html.escape(name)}</h2><p>{html.escape(sentence(split))}</p>")
        parts += [f'<p class="bad">{html.escape(line)}</p>' for line in split.warnings()]
        for title, values in (
            ("frames", split.frames),
            ("frames per second", split.fps),
            ("frames per second of the sources", split.source_fps),
            ("caption tokens", split.tokens),
            ("brightness, 0 to 255", split.brightness),
        ):
            parts.append(f"<h3>{title}: {_range(values)}</h3>{_bars(values)}")
        parts.append(
            f"<h3>range</h3><p>pixels from {min(split.lowest)} to {max(split.highest)}</p>"
        )
        parts.append("<h3>clips per source</h3>" + _sources(split))
        if split.equal:
            rows = [f"<tr><td>{html.escape(a)}<td>{html.escape(b)}" for a, b in split.equal[:TOP]]
            parts.append(f"<h3>equal clips</h3><table>{''.join(rows)}</table>")
        parts.append(_sheet(directory, name, split.stored))
    body = "\n".join(parts)
    return f'<!doctype html><meta charset="utf-8"><title>data</title><style>{_STYLE}</style>{body}'


def _range(values: Sequence[int | float]) -> str:
    if not values:
        return "none"
    low, middle, high = np.percentile(values, (0, 50, 100))
    return f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}, median {middle:.4g}"


def _bars(values: Sequence[int | float]) -> str:
    if not values:
        return ""
    counts, edges = np.histogram(values, min(BINS, max(1, len(set(values)))))
    width = 480 // len(counts)
    bars = []
    for index, count in enumerate(counts):
        height = round(80 * count / counts.max())
        label = f"{edges[index]:.4g} to {edges[index + 1]:.4g}: {count}"
        bars.append(
            f'<rect x="{index * width}" y="{80 - height}" width="{width - 1}" height="{height}" '
            f'fill="#47a"><title>{label}</title></rect>'
        )
    return f'<svg width="480" height="80">{"".join(bars)}</svg>'


def _sources(split: SplitStatistics) -> str:
    rows = [
        f"<tr><td>{html.escape(name)}<td>{count}<td>{count / split.seen:.1%}"
        for name, count in split.sources.most_common(TOP)
    ]
    more = len(split.sources) - len(rows)
    return f"<table>{''.join(rows)}</table>" + f"<p>and {more} more</p>" * (more > 0)


def _sheet(directory: PathLike, split: str, stored: int) -> str:
    chosen = [(split, index) for index in contact_sheet.spread(stored, 12)]
    buffer = io.BytesIO()
    contact_sheet.write(directory, buffer, chosen)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img alt="contact sheet of {html.escape(split)}" src="data:image/png;base64,{encoded}">'
    )
