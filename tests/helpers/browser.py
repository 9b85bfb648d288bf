"""Debian's Chromium without a window, driven by the WebDriver protocol over loopback."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of an element
KEYS = dict(tab="\ue004", enter="\ue007", left="\ue012", right="\ue014", space=" ")
FOUND = shutil.which("chromium") and shutil.which("chromedriver")
MISSING = "chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"


class Browser:
    """One window with a profile of its own."""

    def __init__(self, driver: str, arguments: list[str]):
        self._at = driver
        options = {"binary": shutil.which("chromium"), "args": arguments}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        self._at += (
            f"/session/{self._ask('POST', '/session', {'capabilities': wanted})['sessionId']}"
        )

    def _ask(self, method, path, form=None):
        data = None if form is None else json.dumps(form).encode()
        request = urllib.request.Request(self._at + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def reload(self) -> None:
        self._ask("POST", "/refresh", {})

    def run(self, script: str, *arguments):
        """What the body of a JavaScript function returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, expression: str, seconds: float = 60):
        """The value of a JavaScript expression, once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {expression}")):
            if time.monotonic() > end:
                page = self.run("return document.body.innerText.slice(0, 1500)")
                raise AssertionError(f"{expression} is not true after {seconds} s, on:\n{page}")
            time.sleep(0.1)
        return value

    def _find(self, selector):
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[ELEMENT]}"

    def click(self, selector: str) -> None:
        self._ask("POST", self._find(selector) + "/click", {})

    def type(self, selector: str, text: str) -> None:
        """Replaces the text of a field; of a file's field, its path."""
        field = self._find(selector)
        if not text.startswith("/"):
            self._ask("POST", field + "/clear", {})
        self._ask("POST", field + "/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Presses keys, one after another, wherever the focus is."""
        actions = [
            {"type": kind, "value": KEYS.get(key, key)}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        form = {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        self._ask("POST", "/actions", form)

    def drag(self, selector: str, *points: tuple[int, int]) -> None:
        """Draws through points, in pixels from the element's middle."""
        origin = {ELEMENT: self._find(selector).rpartition("/")[2]}
        moves = [
            {"type": "pointerMove", "duration": 50, "origin": origin, "x": x, "y": y}
            for x, y in points
        ]
        down, up = ({"type": f"pointer{name}", "button": 0} for name in ("Down", "Up"))
        pointer = {"type": "pointer", "id": "mouse", "actions": [moves[0], down, *moves[1:], up]}
        self._ask("POST", "/actions", {"actions": [pointer]})

    def resize(self, width: int, height: int) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def dark(self, on: bool = True) -> None:
        """Prefers a dark page, as people can."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])

    def devtools(self, command: str, **parameters):
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def new_tab(self) -> str:
        handle = self._ask("POST", "/window/new", {"type": "tab"})["handle"]
        self.switch(handle)
        return handle

    def tab(self) -> str:
        return self._ask("GET", "/window")

    def switch(self, handle: str) -> None:
        self._ask("POST", "/window", {"handle": handle})

    def close_tab(self) -> None:
        self._ask("DELETE", "/window")

    def quit(self) -> None:
        with contextlib.suppress(Exception):
            self._ask("DELETE", "")


@contextlib.contextmanager
def driver(profile: Path):
    """Arguments of the browser -> a `Browser`; all are closed at the end."""
    process = subprocess.Popen(
        [shutil.which("chromedriver"), "--port=0"], stdout=subprocess.PIPE, text=True
    )
    browsers: list[Browser] = []
    try:
        line = next(line for line in process.stdout if "successfully on port" in line)
        port = line.rstrip(".\n").rpartition(" ")[2]
        at = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{at}/status", timeout=5):
                    break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

        def start(*arguments: str, size: str = "1200,900") -> Browser:
            own = profile / str(len(browsers))
            fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            fixed += [f"--user-data-dir={own}", f"--window-size={size}"]
            browsers.append(Browser(at, [*fixed, *arguments]))
            return browsers[-1]

        yield start
    finally:
        for one in browsers:
            one.quit()
        process.terminate()
        process.wait(30)
        process.stdout.close()
