"""Self-contained HTML reports: text, tables, curves, and figures with verdicts.

    report = Report("Demo")
    report.text("## Stage 1\\nThe tokenizer saw **2500** batches.")
    report.table(["what", "value"], [["PSNR", 33.4]])
    report.curve("Loss", {"train": (steps, losses)}, "step", "nats")
    report.figures([(png_or_gif_or_mp4_bytes, "a red circle moves left", True)])
    report.save("report.html")

Images and videos are embedded as base64, curves as matplotlib's SVG in the page's light or dark
colours. The page fetches nothing and runs no script.
"""

import base64
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from phenaki.io import artifacts, svg_curves
from phenaki.io.paths import PathLike
from phenaki.io.svg_curves import COLOURS, SERIES

Series = tuple[Any, Any]  # values of x and of y: lists or arrays of one length
Badge = bool | np.bool_ | None

LIGHT, DARK = (
    "".join(f"--{name}: {pair[index]}; " for name, pair in (COLOURS | SERIES).items())
    for index in range(2)
)
STYLE = """
:root { color-scheme: light dark; LIGHT}
@media (prefers-color-scheme: dark) { :root { DARK} }
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
""".replace("LIGHT", LIGHT).replace("DARK", DARK)
# The browser refuses whatever would have to be fetched.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is a page of `Report`."""
    return POLICY.encode() in head


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

        Raises:
            ValueError: a row is not as long as the header.
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
        """A line plot of all series, {label: (xs, ys)}; points that are not finite are left out.

        Raises:
            ValueError: xs and ys differ in length, or no point is finite.
        """
        self._blocks.append(_curve(title, series, xlabel, ylabel))

    def figures(
        self, items: Iterable[tuple[bytes, str, Badge]], column: int = 160, heading: str = ""
    ) -> None:
        """A grid of figures: bytes of a png, jpeg, gif or mp4, caption, verdict (None: no badge).

        `column` is the minimum width of a figure in pixels; 1000 gives each the whole page.

        Raises:
            ValueError: the bytes are of another format.
        """
        figures = "".join(_figure(*item, column) for item in items)
        title = f"<h3>{html.escape(heading)}</h3>" if heading else ""
        self._blocks.append(f'{title}<div class="grid" style="--column:{column}px">{figures}</div>')

    def save(self, path: PathLike) -> int:
        """Writes the page and returns its size in bytes.

        Raises:
            OSError: the path, which the error names, cannot be written.
        """
        page = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
            + "\n".join(self._blocks)
            + "\n</body></html>\n"
        )
        with (
            artifacts.atomic(path) as partial,
            partial.open("w", encoding="utf-8", newline="\n") as file,
        ):
            file.write(page)
        return len(page.encode())


def _text_blocks(markup: str) -> list[str]:
    blocks = []
    # Parts of odd index are inside of ``` fences.
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


def _figure(data: bytes, caption: str, right: Badge, column: int) -> str:
    kind = _media_type(data)
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    text = html.escape(caption)
    if kind.startswith("video"):
        media = f'<video src="{source}" controls autoplay loop muted playsinline></video>'
    else:
        # Enlarged images show their pixels; reduced ones, such as sheets with text, are smoothed.
        rendering = "pixels" if _width(data, kind) < column else "smooth"
        media = f'<img class="{rendering}" src="{source}" alt="{text}" loading="lazy">'
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
    """Width in pixels from the file's header; infinite for a jpeg, which is never enlarged."""
    if kind == "image/png":
        return int.from_bytes(data[16:20], "big")
    return int.from_bytes(data[6:8], "little") if kind == "image/gif" else math.inf


def _curve(title: str, series: Mapping[str, Series], xlabel: str, ylabel: str) -> str:
    points = {label: svg_curves.finite(label, *values) for label, values in series.items()}
    if not any(map(len, points.values())):
        raise ValueError(f"curve {title!r} has no finite point.")
    legend = []
    for index, label in enumerate(points):
        colour = f"var(--c{index % len(SERIES)})"
        legend.append(f'<span><b style="color:{colour}">●</b> {html.escape(label)}</span>')
    name = html.escape(title)
    return (
        f'<h3>{name}</h3><p class="legend">{"".join(legend)}</p>'
        f'<svg viewBox="0 0 {svg_curves.WIDTH} {svg_curves.HEIGHT}" role="img" aria-label="{name}">'
        f"{svg_curves.draw(list(points.values()), xlabel, ylabel)}</svg>"
    )
