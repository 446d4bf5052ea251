"""Servers on loopback for tests: plain files, and a hub that speaks Hugging Face's protocol. Nothing leaves the machine."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Seen:
    """A request as the server saw it."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class FileServer:
    """Gives ``files`` by path, in part where asked for with Range.

    ``cuts`` holds, for each GET of content to come, after how many bytes the connection is closed; None is not at all.
    ``stall`` holds after how many bytes an answer waits, and the event that it waits for. ``status`` answers
    everything with an error, and ``redirects`` sends elsewhere.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cuts: list[int | None] = []
        self.stall: tuple[int, threading.Event] | None = None
        self.requests: list[Seen] = []
        self.ranges = True
        self.status: int | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                server._answer(self)

            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # whoever hangs up early is part of the tests
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Close the port; whoever asks afterwards is refused."""
        self._http.shutdown()
        self._http.server_close()

    def gets(self) -> list[Seen]:
        """The requests for content."""
        return [seen for seen in self.requests if seen.method == "GET"]

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(to.path).path)
        self.requests.append(Seen(to.command, path, to.headers.get("Range"), to.headers.get("Authorization")))
        if self.status is not None:
            self.reply(to, self.status)
        else:
            self.respond(to, path)

    def respond(self, to: BaseHTTPRequestHandler, path: str) -> None:
        if path in self.redirects:
            self.reply(to, 302, {"Location": self.redirects[path]})
        elif path in self.files:
            self.content(to, self.files[path], {})
        else:
            self.reply(to, 404)

    def reply(self, to: BaseHTTPRequestHandler, status: int, headers: dict[str, str] | None = None, body: bytes = b""):
        to.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            to.send_header(key, value)
        to.end_headers()
        if to.command != "HEAD":
            to.wfile.write(body)

    def content(self, to: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str]) -> None:
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", to.headers.get("Range", ""))
        if asked and self.ranges:
            start, status = int(asked[1]), 206
            if start >= len(body):
                self.reply(to, 416, {"Content-Range": f"bytes */{len(body)}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        to.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body) - start)}.items():
            to.send_header(key, value)
        to.end_headers()
        if to.command == "HEAD":
            return
        if self.stall:
            after, go_on = self.stall
            to.wfile.write(body[start:after])
            start = max(start, after)
            go_on.wait(60)
        cut = self.cuts.pop(0) if self.cuts else None
        to.wfile.write(body[start:] if cut is None else body[start : start + cut])
        to.close_connection = cut is not None


@dataclass
class Repository:
    """``commits`` holds the files of every commit, ``revisions`` the commit of every branch and tag."""

    commits: dict[str, dict[str, bytes]]
    revisions: dict[str, str]
    gated: bool = False
    members: tuple[str, ...] = ()
    etags: dict[str, str] = field(default_factory=dict)


class Hub(FileServer):
    """``/api/models/...`` and ``/OWNER/NAME/resolve/REVISION/FILE``; large files are redirected to another host, ``cdn``."""

    LARGE = 10_000

    def __init__(self) -> None:
        super().__init__()
        self.cdn = FileServer()
        self.repositories: dict[str, Repository] = {}
        self.accounts: dict[str, str] = {}
        """Accounts by token."""

    def stop(self) -> None:
        super().stop()
        self.cdn.stop()

    def publish(self, name: str, files: dict[str, bytes], *, gated: bool = False, tag: str | None = None) -> str:
        """Add a commit to ``main``, and a tag to it; returns its 40 digits."""
        repository = self.repositories.setdefault(name, Repository({}, {}, gated))
        commit = hashlib.sha1(f"{name} {len(repository.commits)}".encode()).hexdigest()
        repository.commits[commit] = files
        repository.revisions["main"] = commit
        if tag:
            repository.revisions[tag] = commit
        for body in files.values():
            if len(body) >= self.LARGE:
                self.cdn.files[f"/blobs/{hashlib.sha256(body).hexdigest()}"] = body
        return commit

    def respond(self, to: BaseHTTPRequestHandler, path: str) -> None:
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        asked = listing or re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not asked:
            self.reply(to, 200 if path == "/" else 404)
            return
        name, revision = asked[1], asked[2] or "main"
        token = to.headers.get("Authorization", "").removeprefix("Bearer ")
        account = self.accounts.get(token)
        repository = self.repositories.get(name)
        if token and account is None:
            self.refuse(to, 401, "", "Invalid credentials in Authorization header")
        elif repository is None:
            self.refuse(to, 404 if account else 401, "RepoNotFound", "Repository not found")
        elif repository.gated and not listing and account not in repository.members:
            self.refuse(to, 403 if account else 401, "GatedRepo", f"Access to model {name} is restricted.")
        elif (commit := repository.revisions.get(revision, revision)) not in repository.commits:
            self.refuse(to, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif listing:
            siblings = [{"rfilename": file} for file in repository.commits[commit]]
            body = {"id": name, "modelId": name, "sha": commit, "siblings": siblings}
            self.reply(to, 200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        elif (body := repository.commits[commit].get(asked[3])) is None:
            self.refuse(to, 404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        else:
            self.give(to, repository, commit, asked[3], body)

    def give(self, to: BaseHTTPRequestHandler, repository: Repository, commit: str, file: str, body: bytes) -> None:
        headers = {"X-Repo-Commit": commit}
        if len(body) < self.LARGE:
            named = hashlib.sha1(b"blob " + str(len(body)).encode() + b"\0" + body).hexdigest()
            self.content(to, body, {**headers, "ETag": f'"{repository.etags.get(file, named)}"'})
            return
        sha = hashlib.sha256(body).hexdigest()
        headers |= {"X-Linked-Etag": f'"{repository.etags.get(file, sha)}"', "X-Linked-Size": str(len(body))}
        self.reply(to, 302, {**headers, "Location": f"{self.cdn.address}/blobs/{sha}?signed=once"})

    def refuse(
        self, to: BaseHTTPRequestHandler, status: int, code: str, words: str, more: dict[str, str] | None = None
    ):
        headers = {**(more or {}), **({"X-Error-Code": code} if code else {}), "X-Error-Message": words}
        self.reply(to, status, {**headers, "Content-Type": "application/json"}, json.dumps({"error": words}).encode())
