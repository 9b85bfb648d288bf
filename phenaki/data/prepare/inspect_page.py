"""HTML page with the statistics of a data set: tables, histograms and contact sheets."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np

from phenaki.data.prepare import contact_sheet
from phenaki.data.prepare.inspect import SplitStatistics
from phenaki.io import html_report
from phenaki.io.paths import PathLike

_STYLE = """body{font:14px sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}
td,th{padding:2px 8px;text-align:left}svg{background:#f4f4f4}
svg text{font:11px sans-serif;fill:#333}img{max-width:100%}.bad{color:#b00}"""
_START = '<!doctype html><meta charset="utf-8"><title>data</title>'
BINS = 24
LEFT, TOP_MARGIN, WIDTH, HEIGHT = 56, 8, 480, 80  # pixels of a chart: room for its axes, its bars
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
        for title, values, axis in (
            ("frames", split.frames, "frames of a clip"),
            ("frames per second", split.fps, "frames per second of a clip"),
            ("frames per second of the sources", split.source_fps, "frames per second of a source"),
            ("caption tokens", split.tokens, "tokens of a caption"),
            ("brightness, 0 to 255", split.brightness, "mean of a clip's pixels, 0 to 255"),
        ):
            parts.append(f"<h3>{title}: {_range(values)}</h3>{_bars(values, axis)}")
        parts.append(
            f"<h3>range</h3><p>pixels from {min(split.lowest)} to {max(split.highest)}</p>"
        )
        parts.append("<h3>clips per source</h3>" + _sources(split))
        if split.equal:
            rows = [f"<tr><td>{html.escape(a)}<td>{html.escape(b)}" for a, b in split.equal[:TOP]]
            parts.append(f"<h3>equal clips</h3><table>{''.join(rows)}</table>")
        parts.append(_sheet(directory, name, split.stored))
    body = "\n".join(parts)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{html_report.POLICY}">'
    return f"{_START}{policy}<style>{_STYLE}</style>{body}"


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is a page of this module, also of an earlier version."""
    return head.startswith(_START.encode())


def _range(values: Sequence[int | float]) -> str:
    if not values:
        return "none"
    low, middle, high = np.percentile(values, (0, 50, 100))
    return f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}, median {middle:.4g}"


def _bars(values: Sequence[int | float], axis: str) -> str:
    """A histogram: clips by a value, which `axis` names with its unit."""
    if not values:
        return ""
    counts, edges = np.histogram(values, min(BINS, max(1, len(set(values)))))
    width = WIDTH // len(counts)
    end, bottom = LEFT + width * len(counts), TOP_MARGIN + HEIGHT
    shapes = [f'<path d="M{LEFT} {TOP_MARGIN}V{bottom}H{end}" stroke="#777" fill="none"/>']
    for index, count in enumerate(counts):
        height = round(HEIGHT * count / counts.max())
        label = f"{edges[index]:.4g} to {edges[index + 1]:.4g}: {count}"
        shapes.append(
            f'<rect x="{LEFT + index * width}" y="{bottom - height}" width="{width - 1}" '
            f'height="{height}" fill="#47a"><title>{label}</title></rect>'
        )
    middle = (LEFT + end) // 2
    texts = [
        (LEFT - 4, TOP_MARGIN + 8, "end", f"{counts.max()}"),
        (LEFT - 4, bottom, "end", "0"),
        (LEFT - 4, (TOP_MARGIN + bottom) // 2 + 4, "end", "clips"),
        (LEFT, bottom + 14, "start", f"{min(values):.4g}"),
        (end, bottom + 14, "end", f"{max(values):.4g}"),
        (middle, bottom + 14, "middle", axis),
    ]
    shapes += [
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'
        for x, y, anchor, text in texts
    ]
    size = f'width="{LEFT + WIDTH + 8}" height="{bottom + 20}"'
    return f'<svg {size} role="img" aria-label="{html.escape(axis)}">{"".join(shapes)}</svg>'


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
