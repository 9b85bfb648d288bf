"""A stand-in for the hub on loopback: what a client asks that pushes, looks up and fetches."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".mp4", ".gif", ".png")  # what the hub stores apart


class Hub:
    """Repositories in memory. `requests` are (method, path); `private` names those made private."""

    def __init__(self, address: str):
        self.address = address
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}  # by repository, in order
        self.objects: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.requests: list[tuple[str, str]] = []

    def files(self, repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]]:
        """(commit, content by path)."""
        commits = self.commits[repo]
        return commits[-1] if revision == "main" else next(c for c in commits if c[0] == revision)

    def commit(self, repo: str, lines: bytes) -> str:
        """Applies a commit in the hub's form, a JSON object per line: its name."""
        files = dict(self.files(repo)[1])
        for line in map(json.loads, lines.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        name = hashlib.sha1(lines + bytes(len(self.commits[repo]))).hexdigest()
        self.commits[repo].append((name, files))
        return name


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing."""

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code):
        self._answer({"error": "not found"}, 404, X_Error_Code=code, X_Error_Message="not found")

    def _body(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, self.path))
        return body

    def _repository(self, parts):
        """(repository, commit, files, rest) of /ORG/NAME/KIND/REVISION/...; None after a 404."""
        repo, revision = "/".join(parts[:2]), parts[3]
        if repo not in self.hub.commits:
            return self._missing("RepoNotFound")
        try:
            return repo, *self.hub.files(repo, revision), "/".join(parts[4:])
        except StopIteration:
            return self._missing("RevisionNotFound")

    def do_GET(self):
        """Metadata of a repository, its tree, or a file."""
        self._body()
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        found = self._repository(parts[2:] if api else parts)
        if found is None:
            return
        repo, commit, files, path = found
        if not api:
            if path not in files:
                return self._missing("EntryNotFound")
            etag = f'"{hashlib.sha256(files[path]).hexdigest()}"'
            return self._answer(files[path], X_Repo_Commit=commit, ETag=etag)
        if parts[4] == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(x), "oid": hashlib.sha1(x).hexdigest()}
                for name, x in files.items()
            ]
            return self._answer(entries)
        siblings = [{"rfilename": name} for name in files]
        self._answer({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings})

    do_HEAD = do_GET

    def do_POST(self):
        """A new repository, or the parts of a commit."""
        body, hub = self._body(), self.hub
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(repo)
            hub.commits.setdefault(repo, [("0" * 40, {})])
            return self._answer({"url": f"{hub.address}/{repo}", "id": repo})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{hub.address}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        repo = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            return self._answer({"files": [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]})  # fmt: skip
        assert "/commit/" in path, path
        name = hub.commit(repo, body)
        url = f"{hub.address}/{repo}/commit/{name}"
        self._answer({"success": True, "commitOid": name, "commitUrl": url})

    def do_PUT(self):
        """A large file."""
        content = self._body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self._answer(b"")


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Yields a hub, empty, that answers at its `address`."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.hub = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield handler.hub
        finally:
            server.shutdown()
            thread.join()
