"""The report page: complete in itself, escaped, well formed, readable numbers."""

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from phenaki.io import media
from phenaki.io.html_report import Report

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects tags with attributes and text, and checks that every tag is closed."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def words_of(self, tag: str) -> list[str]:
        return [words for name, words in self.texts if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def saved(report: Report, tmp_path) -> tuple[str, Page]:
    size = report.save(tmp_path / "report.html")
    assert size == (tmp_path / "report.html").stat().st_size
    source = (tmp_path / "report.html").read_text("utf-8")
    return source, Page(source)


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, kind)
    return buffer.getvalue()


def test_page_fetches_nothing(tmp_path):
    video = np.zeros((2, 16, 16, 3), np.uint8)
    media.write_mp4(tmp_path / "a.mp4", video, fps=8)
    mp4 = (tmp_path / "a.mp4").read_bytes()
    report = Report("Demo")
    report.figures([(image("PNG"), "a", True), (image("GIF"), "b", False), (mp4, "c", None)])
    report.curve("Loss", {"train": ([0, 1], [2, 1])}, "step", "nats")
    source, page = saved(report, tmp_path)
    sources = [tag["src"] for tag in page.all("img") + page.all("video")]
    assert [value.split(",")[0] for value in sources] == [
        "data:image/png;base64",
        "data:image/gif;base64",
        "data:video/mp4;base64",
    ]
    assert base64.b64decode(sources[2].split(",")[1]) == mp4
    text = re.sub(r"base64,[\w+/=]+", "", source)  # whose letters may spell anything
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\(", text)
    assert "default-src 'none'" in page.all("meta")[2]["content"]


def test_only_enlarged_images_show_their_pixels(tmp_path):
    report = Report("Demo")
    report.figures([(image("PNG"), "", None), (image("GIF"), "", None)], column=5)
    report.figures([(image("PNG"), "", None), (image("GIF"), "", None)], column=4)
    _, page = saved(report, tmp_path)
    assert [tag["class"] for tag in page.all("img")] == ["pixels"] * 2 + ["smooth"] * 2


def test_verdicts_are_words(tmp_path):
    report = Report("Demo")
    items = [(image("PNG"), "one", np.True_), (image("PNG"), "two", False)]
    report.figures([*items, (image("PNG"), "three", None)], heading="Samples")
    _, page = saved(report, tmp_path)
    assert page.text.endswith("Samples✓ right one✗ wrong twothree")


def test_text_markup(tmp_path):
    report = Report("Demo")
    report.text(
        "# Stage 1\nIt **works** on\n`a < b`.\n\n- one\n- two & three\n\n```\nmake  demo\n```"
    )
    source, _ = saved(report, tmp_path)
    assert "<h2>Stage 1</h2>" in source
    assert "<p>It <b>works</b> on\n<code>a &lt; b</code>.</p>" in source
    assert "<ul><li>one</li><li>two &amp; three</li></ul>" in source
    assert "<pre>make  demo\n</pre>" in source


def test_what_users_wrote_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>'
    report = Report(evil)
    report.text(f"# {evil}\n\n{evil} `{evil}`")
    report.table([evil], [[evil]])
    report.curve(evil, {evil: ([0, 1], [0, 1])}, evil, evil)
    report.figures([(image("PNG"), evil, None)], heading=evil)
    source, page = saved(report, tmp_path)
    assert "<script" not in source
    assert page.all("img")[0]["alt"] == evil


def test_table_formats_numbers(tmp_path):
    report = Report("Demo")
    report.table(
        ["what", "value"], [["PSNR", 33.41234], ["steps", 250000], ["a", None], ["b", True]]
    )
    _, page = saved(report, tmp_path)
    assert page.text.endswith("whatvaluePSNR33.41steps250,000a–byes")
    with pytest.raises(ValueError, match="must have 2 cells"):
        report.table(["what", "value"], [["PSNR"]])


def lines(page: Page) -> list[np.ndarray]:
    """The vertices [n 2] of every series that was drawn."""
    found = []
    for tag in page.all("path"):
        if re.search(r"stroke: var\(--c\d\)", tag["style"]):
            pairs = re.findall(r"([\d.]+) ([\d.]+)", tag["d"])
            found.append(np.array(pairs, float))
    return found


def test_curve_draws_values_where_the_axes_say(tmp_path):
    report = Report("Demo")
    report.curve("Loss", {"a": ([0, 50, 100], [0, 10, 5]), "b": ([100], [0])}, "step", "nats")
    _, page = saved(report, tmp_path)
    line, point = lines(page)
    assert len(line) == 3
    assert (point == line[[2, 0], [0, 1]]).all()  # x of 100 and y of 0
    assert line[1, 0] == pytest.approx((line[0, 0] + line[2, 0]) / 2, abs=0.1)
    assert line[0, 1] - line[2, 1] == pytest.approx(line[2, 1] - line[1, 1], abs=0.2)
    assert line[1, 1] < line[0, 1]  # larger is higher on the screen
    assert {"0", "20", "40", "60", "80", "100", "step", "nats"} <= set(page.words)
    # The labels of the axis of x are where the values are drawn.
    labels = dict(zip(page.words_of("text"), page.all("text"), strict=True))
    assert float(labels["100"]["x"]) == pytest.approx(line[2, 0], abs=0.1)
    assert float(labels["20"]["x"]) == pytest.approx(line[0] @ [0.8, 0] + line[2] @ [0.2, 0], abs=1)


def test_curve_survives_what_training_produces(tmp_path):
    report = Report("Demo")
    steps = np.arange(100_000)
    report.curve("Long", {"a": (steps, np.sin(steps / 9000))}, "step", "")
    report.curve("Diverged", {"a": ([0, 1, 2], [1.0, np.nan, np.inf])}, "step", "")
    report.curve("Flat", {"a": ([1, 2], [1e-5, 1e-5]), "none": ([], [])}, "step", "")
    source, page = saved(report, tmp_path)
    assert "nan" not in source.replace("nance", "")
    long, diverged, flat = lines(page)
    assert 100 < len(long) <= 600
    assert (len(diverged), len(flat)) == (2, 2)
    assert (diverged[0] == diverged[1]).all()  # one finite point: a dot
    assert len(source) < 40_000


def test_the_same_curve_is_the_same_bytes_and_loads_matplotlib_only_when_drawn(tmp_path):
    program = """
import sys
from phenaki.io.html_report import Report
report = Report("Demo")
report.text("words")
assert "matplotlib" not in sys.modules
report.curve("Loss", {"a": ([0, 1, 2], [3.0, 2.0, 1.0])}, "step", "$nats$")
report.save(sys.argv[1])
"""
    pages = []
    for name in ("one.html", "two.html"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    assert b"$nats$" in pages[0]


def test_curve_refuses_nothing_and_uneven_series():
    with pytest.raises(ValueError, match="no finite point"):
        Report("Demo").curve("Loss", {"a": ([0], [np.nan])}, "step", "")
    with pytest.raises(ValueError, match="2 values of x and 1 of y"):
        Report("Demo").curve("Loss", {"a": ([0, 1], [1])}, "step", "")


def test_unknown_formats_and_unwritable_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match="png, jpeg, gif or mp4"):
        Report("Demo").figures([(b"BM whatever", "a", None)])
    with pytest.raises(FileNotFoundError) as error:
        Report("Demo").save(tmp_path / "missing" / "report.html")
    assert error.value.filename.endswith("report.html")
