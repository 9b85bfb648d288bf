"""Renews the images of docs/studio.md and README.md: the studio as it is, in Debian's Chromium.

    python tests/campaigns/studio_screens.py --output=screens

Writes studio_prompt.png and the like to docs/. Look at them: nothing else does.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags
from environment import ROOT

# isort: split
import browser

OUTPUT = flags.DEFINE_string("output", None, "a new folder of the studio", required=True)
MODEL = flags.DEFINE_string("model", "laptop", "as of phenaki studio")
DOCS = flags.DEFINE_string("docs", str(ROOT / "docs"), "where the images go")
SECONDS = 600  # of a story on a busy machine
SCENES = ("a red circle moves right", "then a blue circle moves left", "a green square moves up")


def seek(page: browser.Browser, clock: str, seconds: float) -> None:
    """Stops the films of a clock at a time."""
    page.wait(f"document.querySelector('{clock} input')?.max > 0.5")
    page.run(
        f"if (document.querySelector('{clock} .play').textContent == 'Pause') "
        f"document.querySelector('{clock} .play').click();"
        f"const place = document.querySelector('{clock} input'); place.value = {seconds};"
        "place.dispatchEvent(new Event('input')); window.scrollTo(0, 0);"
    )
    page.wait("![...document.querySelectorAll('video')].some((film) => film.seeking)")


def prompt(page: browser.Browser) -> None:
    """Three takes, one of them kept."""
    page.type("#prompt-form [name=prompt]", "a red circle moves left")
    page.type("#prompt-form [name=takes]", "3")
    page.type("#prompt-form [name=seed]", "4")
    page.click("#prompt-form button.main")
    page.wait("document.querySelectorAll('#takes video').length == 3", SECONDS)
    page.wait("!document.querySelector('#prompt-progress .state')")
    page.click("#takes .take:nth-child(2) .keep")
    page.wait("document.querySelector('#takes .take.kept')")
    seek(page, "#takes-clock", 0.6)


def story(page: browser.Browser) -> None:
    """Three scenes and their film."""
    page.click("#tab-story")
    page.type("#story-form [name=name]", "three scenes")
    for number, text in enumerate(SCENES, 1):
        if number > 1:
            page.click("#scene-add")
        page.type(f".scene:nth-child({number}) .prompt", text)
        page.type(f".scene:nth-child({number}) .seconds", "2")
    page.click(".scene:nth-child(3) .cut")
    page.click("#story-form button.main")
    page.wait("document.getElementById('film-video').readyState > 1", SECONDS)
    page.wait("!document.querySelector('#story-progress .state')", SECONDS)
    seek(page, "#film-clock", 3.0)


def paint(page: browser.Browser) -> None:
    """A part of a take, sampled anew."""
    page.click("#tab-paint")
    page.wait("document.querySelectorAll('#paint-take option').length > 1")
    page.run(
        "const select = document.getElementById('paint-take'); select.selectedIndex = 1;"
        "select.dispatchEvent(new Event('change'))"
    )
    page.wait("!document.getElementById('painter').hidden")
    page.drag("#paint-canvas", (-70, 80), (-20, 80), (40, 90))
    page.type("#paint-form [name=prompt]", "a blue square moves right")
    page.click("#paint-form button.main")
    page.wait("document.querySelectorAll('#painted video').length == 2", SECONDS)
    seek(page, "#paint-clock", 0.9)


def reconstruct(page: browser.Browser, folder: Path) -> None:
    """A film of the studio through the tokenizer."""
    page.click("#tab-reconstruct")
    film = min(folder.glob("takes/*/*/film.mp4"), key=lambda path: path.stat().st_mtime)
    page.type("#clip-file", str(film))
    page.wait("document.querySelectorAll('#clips video').length == 2", SECONDS)
    seek(page, "#clip-clock", 1.0)


def shoot(page: browser.Browser, folder: Path) -> None:
    """All images, in the order of the tabs."""
    docs = Path(DOCS.value)
    for name, size, act in (
        ("prompt", (1000, 760), lambda: prompt(page)),
        ("story", (1000, 1250), lambda: story(page)),
        ("paint", (1000, 1250), lambda: paint(page)),
        ("reconstruct", (1000, 1050), lambda: reconstruct(page, folder)),
        ("narrow", (390, 844), lambda: page.click("#tab-prompt")),
    ):
        page.resize(*size)
        page.dark(name == "narrow")
        act()
        page.screenshot(docs / f"studio_{name}.png")
        print(docs / f"studio_{name}.png", flush=True)


def main(argv):
    """Starts a studio and a browser."""
    del argv
    folder = Path(OUTPUT.value).absolute()
    command = [sys.executable, "-m", "phenaki.commands.main", "studio", f"--model={MODEL.value}"]
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(
            [*command, f"--output={folder}", "--port=0"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        ) as studio,
    ):  # fmt: skip
        try:
            address = re.search(r"http\S+:\d+/", studio.stdout.readline())[0]
            with browser.driver(Path(profile)) as start:
                page = start()
                page.open(address)
                page.wait("document.getElementById('model').dataset.ready")
                shoot(page, folder)
        finally:
            studio.terminate()


if __name__ == "__main__":
    app.run(main)
