"""A studio on loopback in a thread of the test, and a client that is one browser."""

import contextlib
import http.client
import json
import socket
import threading
import time

import tiny

from phenaki.studio import serve
from phenaki.studio.engine import Engine
from phenaki.studio.rooms import Rooms


@contextlib.contextmanager
def running(engine, directory, *, host="127.0.0.1", password=None, upload=10**6, runs=None):
    """(the rooms of a studio that serves, its port)."""
    rooms = Rooms(engine, directory, disk=10**9, upload=upload, runs=runs)
    listening = socket.create_server(("127.0.0.1", 0))
    with serve.server(rooms, listening, host, password) as server:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield rooms, listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
            listening.close()


@contextlib.contextmanager
def running_tiny(tmp_path_factory, **options):
    """`running` with the tiny model, which is loaded."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.phenaki().save(folder)
    engine = Engine(folder)
    with running(engine, tmp_path_factory.mktemp("studio"), **options) as (rooms, port):
        engine.ready.wait()
        yield rooms, port


def visitor(port):
    """A client that has its cookie."""
    client = Client(port)
    client.ask("GET", "/")
    return client


class Client:
    """One browser: it keeps its cookie."""

    def __init__(self, port, **headers):
        self.port, self.cookie, self.headers = port, None, headers

    def ask(self, method, path, body=None, **headers):
        """(status, headers, bytes) of an answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        own = {"Cookie": self.cookie} if self.cookie else {}
        if method != "GET":
            own["X-Studio"] = "1"
        given = own | self.headers | {name.replace("_", "-"): x for name, x in headers.items()}
        given = {name: value for name, value in given.items() if value is not None}
        link.request(method, path, body, given)
        answer = link.getresponse()
        content = answer.read()
        link.close()
        if answer.getheader("set-cookie"):
            self.cookie = answer.getheader("set-cookie").partition(";")[0]
        return answer.status, answer.headers, content

    def get(self, path):
        """The JSON at a path."""
        status, _, content = self.ask("GET", path)
        assert status == 200, content
        return json.loads(content)

    def post(self, path, form, status=200):
        """The JSON that answers a form."""
        found, _, content = self.ask("POST", path, json.dumps(form))
        assert found == status, content
        return json.loads(content)

    def follow(self, job):
        """Every snapshot of a job until it is over; listens as a page does."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        link.request("GET", f"/api/jobs/{job['id']}/events", headers={"Cookie": self.cookie})
        answer = link.getresponse()
        assert answer.status == 200
        for line in answer:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
        link.close()

    def done(self, job):
        """The last snapshot of a job."""
        return list(self.follow(job))[-1]


def wait(true, seconds=30):
    """Waits until `true()` is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
