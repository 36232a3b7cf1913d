"""A stub of GitHub's API for `atlas ci`: comments, issues and releases of a repository, in memory."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

BOT = {"login": "github-actions[bot]", "type": "Bot", "id": 1}


@dataclass
class GithubServer:
    """The stored comments, issues and releases."""

    address: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)
    denied: bool = False
    """Whether every write is refused, as for a token without the permission."""

    def answer(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, Any]:
        """Status and body."""
        if self.denied and method != "GET":
            return 403, {"message": "Resource not accessible by integration"}
        match [method, *path.strip("/").split("/")[3:]]:
            case ["GET", "issues"]:
                return 200, [issue for issue in self.issues if issue["state"] == "open"]
            case ["POST", "issues"]:
                return 201, self._add(self.issues, {"state": "open", **given}, "issues")
            case ["GET", "issues", number]:
                return 200, self._issue(int(number))
            case ["PATCH", "issues", number]:
                return 200, self._change(self._issue(int(number)), given)
            case ["GET", "issues", number, "comments"]:
                return 200, [comment for comment in self.comments if comment["number"] == int(number)]
            case ["POST", "issues", number, "comments"]:
                return 201, self._add(self.comments, {"number": int(number), **given}, "issues/comments")
            case ["PATCH", "issues", "comments", identifier]:
                [found] = [comment for comment in self.comments if comment["id"] == int(identifier)]
                return 200, self._change(found, given)
            case ["GET", "releases"]:
                return 200, self.releases
            case ["POST", "releases"]:
                return 201, self._add(self.releases, given, "releases")
            case ["PATCH", "releases", identifier]:
                [found] = [release for release in self.releases if release["id"] == int(identifier)]
                return 200, self._change(found, given)
            case _:
                return 404, {"message": f"Not Found: {method} {path}"}

    def _issue(self, number: int) -> dict[str, Any]:
        for issue in self.issues:
            if issue["number"] == number:
                return issue
        # The issue of a pull request, which exists before any run.
        return {"number": number, "url": f"{self.address}/repos/o/r/issues/{number}", "state": "open", "id": number}

    def _add(self, to: list[dict[str, Any]], given: dict[str, Any], kind: str) -> dict[str, Any]:
        identifier = 100 + len(to)
        made = {
            "id": identifier,
            "number": identifier,
            "url": f"{self.address}/repos/o/r/{kind}/{identifier}",
            "html_url": f"https://github.example/o/r/{kind}/{identifier}",
            "user": BOT,
            **given,
        }
        to.append(made)
        return made

    def _change(self, found: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        found.update(given)
        return found


@contextmanager
def serving() -> Iterator[GithubServer]:
    """The API on a free port of the loopback."""
    state = GithubServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            given = json.loads(self.rfile.read(length) or b"{}")
            status, body = state.answer(self.command, re.sub(r"\?.*", "", self.path), given)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
