"""One HTML page that needs nothing else: text, tables, curves, and figures with verdicts.

    report = Report("Demo")
    report.text("## Stage 1\\nThe tokenizer saw **2500** batches.")
    report.table(["what", "value"], [["PSNR", 33.4]])
    report.curve("Loss", {"train": (steps, losses)}, "step", "nats")
    report.figures([(png_or_gif_or_mp4_bytes, "a red circle moves left", True)])
    report.save("report.html")

Pictures travel inside the page as base64, curves as drawings that follow its light or dark colours.
"""

import base64
import html
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Series = tuple[Any, Any]  # values of x and of y: lists or arrays of one length
Verdict = bool | np.bool_ | None

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --soft: #f0f2f4; --line: #c9ced4;
  --good: #147a3d; --bad: #b3261e;
  --c0: #1f6fd0; --c1: #d2601a; --c2: #1a8a4c; --c3: #a33bb0; --c4: #8a6d00; --c5: #c22a55; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #14171a; --soft: #20252a;
  --line: #454c54; --good: #57c785; --bad: #ff8a80;
  --c0: #6db1ff; --c1: #ffa05c; --c2: #5fd394; --c3: #de8ee8; --c4: #e0c04a; --c5: #ff86a5; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
p, ul { max-width: 44rem; }
code, pre { background: var(--soft); border-radius: 4px; padding: .1em .3em; font-size: .9em; }
pre, .wide { overflow-x: auto; } pre { padding: .7em; }
table { border-collapse: collapse; margin: 1rem 0; } caption { text-align: left; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left;
  overflow-wrap: normal; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.grid { display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--column), 100%), 1fr)); }
figure { margin: 0; } figure > img, figure > video { width: 100%; display: block;
  background: var(--soft); border-radius: 4px; } .pixels { image-rendering: pixelated; }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .3rem; }
.badge { font-weight: 600; white-space: nowrap; }
.right { color: var(--good); } .wrong { color: var(--bad); }
svg { width: 100%; max-width: 44rem; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.legend span { margin-right: 1.2rem; white-space: nowrap; } .legend { font-size: .85rem; }
"""
# The browser itself refuses anything that would have to be fetched.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
COLOURS = 6  # --c0 to --c5 above


class Report:
    """Collects blocks from top to bottom; `save` writes the page."""

    def __init__(self, title: str):
        self.title = title
        self._blocks = [f"<h1>{html.escape(title)}</h1>"]

    def text(self, markup: str) -> None:
        """Paragraphs between blank lines; # headings, - items, **bold**, `code`, ``` blocks."""
        self._blocks += _text_blocks(markup)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Rows of cells; numbers keep four digits and align right, None is a dash.

        Raises ValueError if a row is not as long as the header.
        """
        lines = ["".join(f"<th>{html.escape(name)}</th>" for name in header)]
        for row in rows:
            if len(row) != len(header):
                raise ValueError(
                    f"row {list(row)} must have {len(header)} cells as {list(header)}."
                )
            lines.append("".join(map(_cell, row)))
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        self._blocks.append(f'<div class="wide"><table>{body}</table></div>')

    def curve(self, title: str, series: Mapping[str, Series], xlabel: str, ylabel: str) -> None:
        """One drawing of all series, {label: (xs, ys)}; values that are not finite are left out.

        Raises ValueError if xs and ys differ in length or nothing finite is left.
        """
        self._blocks.append(_curve(title, series, xlabel, ylabel))

    def figures(
        self, items: Iterable[tuple[bytes, str, Verdict]], column: int = 160, heading: str = ""
    ) -> None:
        """A grid of pictures: bytes of a png, jpeg, gif or mp4, caption, verdict (None: no badge).

        `column` is the least width of one in pixels; 1000 gives each the whole page.
        Raises ValueError for bytes of another format.
        """
        figures = "".join(_figure(*item, column) for item in items)
        title = f"<h3>{html.escape(heading)}</h3>" if heading else ""
        self._blocks.append(f'{title}<div class="grid" style="--column:{column}px">{figures}</div>')

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the page and return its size in bytes; OSError names a path that cannot be."""
        page = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
            + "\n".join(self._blocks)
            + "\n</body></html>\n"
        )
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
        return len(page.encode())


def _text_blocks(markup: str) -> list[str]:
    blocks = []
    # Odd parts lie between the fences.
    for index, part in enumerate(re.split(r"^```.*\n?", markup, flags=re.MULTILINE)):
        if index % 2:
            blocks.append(f"<pre>{html.escape(part)}</pre>")
            continue
        # A heading ends its block even where no blank line follows.
        spaced = re.sub(r"^(#{1,3} .*)$", r"\n\1\n", part, flags=re.MULTILINE)
        blocks += [_text_block(block.strip()) for block in re.split(r"\n\s*\n", spaced)]
    return [block for block in blocks if block]


def _text_block(block: str) -> str:
    if match := re.match(r"(#{1,3}) (.*)", block):
        level = max(2, len(match[1]))  # the title is the only h1
        return f"<h{level}>{_inline(match[2])}</h{level}>"
    if block.startswith("- "):
        items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
        return "<ul>" + "".join(f"<li>{_inline(item.strip())}</li>" for item in items) + "</ul>"
    return f"<p>{_inline(block)}</p>" if block else ""


def _inline(text: str) -> str:
    pieces = re.split(r"`([^`]+)`", html.escape(text))
    bold = [re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", piece) for piece in pieces[::2]]
    pieces[::2] = bold
    pieces[1::2] = [f"<code>{piece}</code>" for piece in pieces[1::2]]
    return "".join(pieces)


def _cell(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int | np.integer):
        return f'<td class="number">{value:,}</td>'
    if isinstance(value, float | np.floating):
        return f'<td class="number">{float(value):.4g}</td>'
    return f"<td>{'–' if value is None else _inline(str(value))}</td>"


def _figure(data: bytes, caption: str, right: Verdict, column: int) -> str:
    kind = _media_type(data)
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    text = html.escape(caption)
    if kind.startswith("video"):
        media = f'<video src="{source}" controls autoplay loop muted playsinline></video>'
    else:
        # Enlarged pictures show their pixels; reduced ones, such as sheets with text, are smoothed.
        look = "pixels" if _width(data, kind) < column else "smooth"
        media = f'<img class="{look}" src="{source}" alt="{text}" loading="lazy">'
    verdict = ""
    if right is not None:
        word, mark = ("right", "✓") if right else ("wrong", "✗")
        verdict = f'<span class="badge {word}">{mark} {word}</span> '
    return f"<figure>{media}<figcaption>{verdict}{text}</figcaption></figure>"


def _media_type(data: bytes) -> str:
    starts = {b"\x89PNG": "image/png", b"GIF8": "image/gif", b"\xff\xd8\xff": "image/jpeg"}
    for start, kind in starts.items():
        if data.startswith(start):
            return kind
    if data[4:8] == b"ftyp":
        return "video/mp4"
    raise ValueError(f"a figure must be png, jpeg, gif or mp4, not bytes that begin {data[:8]!r}.")


def _width(data: bytes, kind: str) -> int | float:
    """In pixels, from the file's header."""
    if kind == "image/png":
        return int.from_bytes(data[16:20], "big")
    return int.from_bytes(data[6:8], "little") if kind == "image/gif" else math.inf


WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 300, 62, 42, 12, 14  # of the drawing, in its units


def _curve(title: str, series: Mapping[str, Series], xlabel: str, ylabel: str) -> str:
    points = {label: _finite(label, *values) for label, values in series.items()}
    if not any(map(len, points.values())):
        raise ValueError(f"curve {title!r} has no finite point.")
    low, high = _limits(np.concatenate(list(points.values())))

    def place(xy: np.ndarray) -> np.ndarray:
        unit = (xy - low) / (high - low)
        size = np.array([WIDTH - LEFT - RIGHT, -(HEIGHT - TOP - BOTTOM)])
        return np.array([LEFT, HEIGHT - BOTTOM]) + unit * size

    parts = _axes(low, high, place, xlabel, ylabel)
    legend = []
    for index, (label, xy) in enumerate(points.items()):
        colour = f"var(--c{index % COLOURS})"
        parts.append(_line(place(xy), colour))
        legend.append(f'<span><b style="color:{colour}">●</b> {html.escape(label)}</span>')
    name = html.escape(title)
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
    return f'<h3>{name}</h3><p class="legend">{"".join(legend)}</p>{drawing}{"".join(parts)}</svg>'


def _finite(label: str, xs: Any, ys: Any) -> np.ndarray:
    """Points [n 2], thinned to what a screen can show."""
    if len(xs) != len(ys):
        raise ValueError(f"curve {label!r} has {len(xs)} values of x and {len(ys)} of y.")
    xy = np.stack([np.asarray(xs, float), np.asarray(ys, float)], axis=-1).reshape(-1, 2)
    xy = xy[np.isfinite(xy).all(-1)]
    return xy[np.unique(np.linspace(0, len(xy) - 1, 600).astype(int))] if len(xy) > 600 else xy


def _limits(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = xy.min(0), xy.max(0)
    flat = np.where(high > low, 0, np.maximum(np.abs(low) * 0.1, 0.5))
    margin = np.array([0, 0.04]) * (high - low)
    return low - flat - margin, high + flat + margin


def _axes(low: np.ndarray, high: np.ndarray, place: Any, xlabel: str, ylabel: str) -> list[str]:
    parts = []
    line = '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="var(--line)"/>'
    for value in _ticks(low[0], high[0]):
        x = round(float(place(np.array([value, low[1]]))[0]), 1)
        parts.append(f'<text x="{x}" y="{HEIGHT - 24}" text-anchor="middle">{value:.6g}</text>')
    for value in _ticks(low[1], high[1]):
        y = round(float(place(np.array([low[0], value]))[1]), 1)
        parts.append(line.format(LEFT, y, WIDTH - RIGHT, y))
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.6g}</text>')
    parts.append(line.format(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM))
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(
        f'<text x="{(WIDTH + LEFT - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{html.escape(xlabel)}</text>"
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(ylabel)}</text>"
    )
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers: 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _line(points: np.ndarray, colour: str) -> str:
    if not len(points):
        return ""
    if len(points) == 1:
        (x, y) = points[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
