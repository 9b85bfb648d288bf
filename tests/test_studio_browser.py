"""The studio in a real browser, Debian's Chromium: what people do, and what is done to them."""

import hashlib
import http.server
import json
import socket
import socketserver
import threading

import browser
import numpy as np
import pytest
from studio import running_tiny, wait

from phenaki.io import media

pytestmark = [
    pytest.mark.skipif(not browser.FOUND, reason=browser.MISSING),
    pytest.mark.slow,
]
PROMPT = "a red circle moves left"
LONG = 120  # seconds of a story that no test waits for
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\' "); drop'
PLAYS = "[...document.querySelectorAll('{} video')].some(v => v.currentTime > 0.2 && !v.paused)"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for number in range(2):
        a_run(folder / f"run{number}", rate=number / 10 + 0.1)
    with running_tiny(tmp_path_factory, runs=folder) as (rooms, port):
        yield rooms, f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    with browser.driver(tmp_path_factory.mktemp("profiles")) as begin:
        yield begin


@pytest.fixture(scope="module")
def one(start):
    return start()


@pytest.fixture
def page(studio, one):
    """The studio, opened anew, with no job from before."""
    one.devtools("Emulation.clearDeviceMetricsOverride")
    one.open(studio[1])
    one.run("sessionStorage.clear()")
    one.reload()
    one.wait("document.getElementById('model').dataset.ready")
    return one


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (11, 1, 1, 3), np.uint8)
    media.write_mp4(path, np.broadcast_to(frames, (11, 16, 16, 3)), 8)
    return path


def a_run(folder, rate):
    (folder / "samples").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"optim": {"rate": rate}}))
    for step in (1, 2):
        log(folder, step)
    media.write_png(folder / "samples/1.png", np.zeros((8, 8, 3), np.uint8))


def log(folder, step):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "loss/total": 1 / step, "seconds": step}) + "\n")


def make(page, prompt=PROMPT, **fields):
    page.type("#prompt-form [name=prompt]", prompt)
    for name, value in fields.items():
        page.type(f"#prompt-form [name={name}]", value)
    page.click("#prompt-form button.main")


def takes(page):
    return page.run("return document.querySelectorAll('#takes .take').length")


def make_story(page, prompts, seconds="0.7"):
    page.click("#tab-story")
    page.click("#story-new")
    for number, prompt in enumerate(prompts, 1):
        if number > 1:
            page.click("#scene-add")
        page.type(f".scene:nth-child({number}) .prompt", prompt)
        page.type(f".scene:nth-child({number}) .seconds", seconds)
    page.click("#story-form button.main")


def idle(page, room):
    return f"!document.querySelector('#{room}-progress .state')"


def test_a_prompt_becomes_playing_films_on_one_clock(page):
    before = takes(page)
    make(page, takes="2")
    page.wait(f"document.querySelectorAll('#takes .take').length == {before + 2}")
    page.wait(PLAYS.format("#takes"))
    page.click("#takes-clock .play")
    seek = "const place = document.querySelector('#takes-clock input'); place.value = 0.8;"
    page.run(seek + "place.dispatchEvent(new Event('input'))")
    films = "[...document.querySelectorAll('#takes video')]"
    page.wait(f"{films}.every(v => v.paused && Math.abs(v.currentTime - 0.8) < 0.07)")
    page.click("#takes .keep")
    page.wait("document.querySelector('#takes .take.kept .keep')?.textContent == 'Kept'")
    for number in (1, 2):
        page.click(f"#takes .take:nth-child({number}) .choose")
    page.wait("document.querySelectorAll('#compare video').length == 2")
    assert "row" in page.run("return document.querySelector('#compare table').textContent")


def test_a_story_of_three_scenes_is_rerolled_and_undone(page, studio):
    make_story(page, [PROMPT, "then a blue square moves up", "a green circle moves right"])
    page.wait("document.getElementById('film-video').readyState > 1")
    page.wait(idle(page, "story"))
    page.wait(PLAYS.format("#film"))
    (film,) = studio[0].directory.glob("stories/*/*/film/story.mp4")
    first = hashlib.sha256(film.read_bytes()).hexdigest()
    page.click(".scene:nth-child(2) .reroll")
    page.wait("!document.getElementById('story-undo').disabled")
    page.wait(idle(page, "story"))
    second = hashlib.sha256(film.read_bytes()).hexdigest()
    assert second != first
    assert page.run("return document.querySelectorAll('#drift svg').length") == 3
    page.click("#story-undo")
    page.wait("document.getElementById('story-undo').disabled")
    page.click("#story-form button.main")
    wait(lambda: hashlib.sha256(film.read_bytes()).hexdigest() == first)
    page.click("#story-branch")
    page.wait("document.querySelectorAll('#stories option').length == 2")
    links = "return [...document.querySelectorAll('#film-files a')].map(a => a.textContent)"
    assert {"story.mp4", "story.srt", "story.yaml"} <= set(page.run(links))


def test_a_job_survives_a_reload_and_can_be_cancelled(page):
    make_story(page, [PROMPT], seconds=str(LONG))
    page.wait("/window [2-9]/.test(document.querySelector('#story-progress .state')?.textContent)")
    page.reload()
    page.wait("/window /.test(document.querySelector('#story-progress .state')?.textContent)")
    page.wait("document.querySelector('#story-progress canvas').width > 1")
    page.click("#story-progress .cancel")
    page.wait("document.querySelector('#story-progress .state')?.textContent == 'cancelled'")


def test_a_second_tab_waits_and_a_closed_one_ends_its_work(page, studio):
    rooms, url = studio
    make_story(page, [PROMPT], seconds=str(LONG))
    page.wait("/window /.test(document.querySelector('#story-progress .state')?.textContent)")
    job = page.run("return sessionStorage.getItem('job-story')")
    first = page.tab()
    second = page.new_tab()
    page.open(url)
    page.wait("document.getElementById('model').dataset.ready")
    before = takes(page)
    make(page, takes="1")
    page.wait("document.querySelector('#prompt-progress .state')?.textContent.includes('1 before')")
    page.switch(first)
    page.close_tab()
    page.switch(second)
    page.wait(f"document.querySelectorAll('#takes .take').length == {before + 1}")
    assert rooms.queue._jobs[job].state == "cancelled"


def test_hostile_captions_are_text(page):
    make(page, HOSTILE, takes="1")
    page.wait("document.querySelector('#takes .text')?.textContent.includes('onerror')")
    assert page.run("return document.querySelectorAll('#takes img, #takes script').length") == 0
    make_story(page, [HOSTILE, HOSTILE])
    page.wait("document.getElementById('film-video').readyState > 1")
    page.wait(idle(page, "story"))
    page.click("#tab-paint")
    page.wait("document.querySelectorAll('#paint-take option').length > 1")
    assert page.run("return window.hacked") is None
    assert page.run("return [...document.images].filter(i => i.src.endsWith('/x')).length") == 0


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("page.html.mp4", b"<script>window.hacked=1</script>", "no video or image"),
        ("cut.mp4", b"\0\0\0\x18ftypmp42" + bytes(2000), "cannot be read"),
        ("bomb.png", b"\x89PNG\r\n\x1a\n" + bytes(64), "cannot be read"),
        ("large.mp4", b"\0\0\0\x18ftypmp42" + bytes(1_100_000), "1 MB at most"),
    ],
)
def test_hostile_uploads_are_refused_in_words(page, studio, tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    page.click("#tab-reconstruct")
    page.type("#clip-file", str(tmp_path / name))
    page.wait(f"document.getElementById('notes').textContent.includes('{line}')")
    assert page.run("return window.hacked") is None
    assert not list(studio[0].directory.glob("uploads/*/*/upload"))


def test_a_dropped_clip_is_reconstructed(page, clip):
    page.click("#tab-reconstruct")
    page.type("#clip-file", str(clip))
    page.wait(PLAYS.format("#clips"))
    assert page.run("return document.querySelectorAll('#clips video').length") == 2
    page.wait(
        "/frame [0-9]+ of 11: [0-9.]+ dB/.test(document.getElementById('clip-number').textContent)"
    )
    assert page.run("return document.querySelectorAll('#decibels svg').length") == 1


def test_what_is_painted_is_filled_and_the_rest_stays(page, studio, clip):
    page.click("#tab-paint")
    page.type("#paint-file", str(clip))
    page.wait("!document.getElementById('painter').hidden")
    page.drag("#paint-canvas", (-20, -20), (20, 0), (0, 20))
    page.type("#paint-form [name=prompt]", PROMPT)
    page.click("#paint-form button.main")
    page.wait(PLAYS.format("#painted"))
    newest = max(studio[0].directory.glob("takes/*/*/take.json"), key=lambda x: x.stat().st_mtime)
    after = np.load(newest.parent / "frames.npy")
    upload = max(
        studio[0].directory.glob("uploads/*/*/frames.npy"), key=lambda x: x.stat().st_mtime
    )
    same = (after == np.load(upload)).all((-1, 0))
    assert same[0].all() and same[:, 0].all()  # far from the brush
    assert not same.all()


def test_the_page_fits_a_narrow_window_dark_and_light(page):
    page.resize(390, 844)
    for dark in (False, True):
        page.dark(dark)
        for room in ("prompt", "story", "paint", "reconstruct"):
            page.click(f"#tab-{room}")
            wide = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
            assert wide[0] <= wide[1], room
    back = "return getComputedStyle(document.body).backgroundColor"
    night = page.run(back)
    page.dark(False)
    assert page.run(back) != night


def test_runs_are_drawn_and_followed(page, studio):
    page.click("#tab-runs")
    page.wait("document.querySelectorAll('#curves svg').length > 0")
    page.type("#run-filter", "loss")
    page.wait("document.querySelectorAll('#curves svg').length == 1")
    page.wait("document.querySelectorAll('#run-samples img').length == 2")
    page.wait("[...document.querySelectorAll('#run-samples img')].every(x => x.naturalWidth == 8)")
    rows = "return document.querySelector('#run-differences').textContent"
    assert "optim.rate0.10.2" in page.run(rows)
    log(studio[0].runs.directory / "run0", 7)
    page.wait("document.querySelector('#curves svg').textContent.includes('7')")


def test_the_keyboard_is_enough(page):
    before = takes(page)
    page.run("document.getElementById('tab-prompt').focus()")
    page.press("right", "right")
    assert page.run("return document.activeElement.id") == "tab-paint"
    assert not page.run("return document.getElementById('room-paint').hidden")
    page.press("left", "left", "tab", *"a red circle", "tab", "tab", "tab", "tab", "enter")
    page.wait(f"document.querySelectorAll('#takes .take').length == {before + 2}")
    page.run("document.querySelector('#takes-clock .play').focus()")
    page.press("space")
    page.wait("[...document.querySelectorAll('#takes video')].every(v => v.paused)")


class Recorder(http.server.BaseHTTPRequestHandler):
    """A proxy that lets nothing through."""

    asked: set[str]

    def refuse(self):
        type(self).asked.add(self.path.split("/")[2] if "//" in self.path else self.path)
        self.send_error(502)

    do_GET = do_POST = do_CONNECT = do_HEAD = refuse

    def log_message(self, *line):
        pass


def test_nothing_outside_is_contacted(studio, start, monkeypatch):
    reached = set()
    connect = socket.socket.connect

    def watched(own, address):
        reached.add(address[0] if isinstance(address, tuple) else "local")
        return connect(own, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    Recorder.asked = set()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Recorder) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        quiet = ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
        quiet += ["--disable-sync", "--disable-default-apps", "--no-default-browser-check"]
        at = f"--proxy-server=127.0.0.1:{proxy.server_address[1]}"
        page = start(at, "--proxy-bypass-list=127.0.0.1", *quiet)
        page.open("about:blank")
        wait(lambda: page.run("return performance.now()") > 3000)
        own = set(Recorder.asked)
        page.open(studio[1])
        page.wait("document.getElementById('model').dataset.ready")
        make(page, takes="1")
        page.wait(PLAYS.format("#takes"))
        make_story(page, [PROMPT, "a blue square"])
        page.wait("document.getElementById('film-video').readyState > 1")
        loaded = "return performance.getEntriesByType('resource').map(e => new URL(e.name).host)"
        assert set(page.run(loaded)) == {studio[1].split("/")[2]}
        # The recorder works: what a page asks for outside comes to it.
        page.open("http://outside.example/")
        proxy.shutdown()
    found = Recorder.asked - own
    assert "outside.example" in found
    chromium = ("google.com", "googleapis.com", "gvt1.com", "gstatic.com")  # it asks by itself
    assert [host for host in found if not host.split(":")[0].endswith(chromium)] == [
        "outside.example"
    ]
    assert reached <= {"127.0.0.1", "local"}
