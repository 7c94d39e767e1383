"""The report from a server on this machine: the same page, with units read when somebody looks at them.

It listens on the loopback address alone, answers only those who call it by that name (a page elsewhere that
gives its own name this address gets nothing), and knows no paths but its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from nxtools.errors import InputError, NxError
from nxtools.stream import Record, dump
from nxtools.view.html import document, served_policy
from nxtools.view.index import Changed, Index
from nxtools.view.model import page

ADDRESS = "127.0.0.1"
NAMES = frozenset({ADDRESS, "localhost"})
QUESTION_BYTES = 1 << 20
IDLE = 60  # seconds until a connection on which nobody asks is closed

JSON = "application/json"


class Refused(Exception):
    """An answer that is no content: a status, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Site:
    """What there is to be seen of an index.

    complete: adds what can be computed to a unit line that is looked at; parts: what else the page may have,
    by name; answers: by name, what is said to a question, both as JSON values.
    """

    def __init__(
        self,
        index: Index,
        title: str | None = None,
        *,
        complete: Callable[[Record], None] = lambda record: None,
        parts: Mapping[str, Callable[[], Any]] | None = None,
        answers: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        self._index = index
        self._complete = complete
        self._parts = dict(parts or {})
        self._answers = dict(answers or {})
        # Both keep things from one time to the next; a subject that runs keeps no unit waiting.
        self._completing, self._answering = threading.Lock(), threading.Lock()
        subjects = ", ".join(index.overview["facts"].get("subject", {})) or "nothing yet"
        self._start = b"".join(document(title or subjects, index.overview, [], served=True))
        self._rows = dump(index.rows)

    def warm_up(self) -> None:
        """Makes one page, so that whoever asks first need not wait for what all of them need."""
        for row in self._index.rows[:1]:
            with contextlib.suppress(Refused, NxError):
                self._unit(row["address"])

    def get(self, path: str) -> tuple[str, bytes]:
        """Media type and bytes. Refused."""
        if path == "/":
            return "text/html; charset=utf-8", self._start
        if path == "/rows":
            return JSON, self._rows
        room, name = _named(path)
        if room == "units":
            return JSON, self._unit(name)
        if room == "parts" and name in self._parts:
            return JSON, dump(self._parts[name]())
        raise Refused(HTTPStatus.NOT_FOUND, "there is nothing of this name")

    def answer(self, path: str, question: bytes) -> bytes:
        """To what somebody typed. Refused."""
        room, name = _named(path)
        answer = self._answers.get(name) if room == "answers" else None
        if answer is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing of this name")
        try:
            asked = orjson.loads(question)
        except orjson.JSONDecodeError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "a question is JSON") from error
        try:
            with self._answering:
                return dump(answer(asked))
        except Changed as error:
            raise Refused(HTTPStatus.CONFLICT, str(error)) from error
        except InputError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _unit(self, address: str) -> bytes:
        try:
            record = self._index[address]
        except KeyError as error:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no unit {address}") from error
        except Changed as error:
            raise Refused(HTTPStatus.CONFLICT, str(error)) from error
        with self._completing:
            self._complete(record)
        return dump(page(record))


def _named(path: str) -> tuple[str, str]:
    """`/units/0%3A7` in its parts."""
    room, _, name = path.removeprefix("/").partition("/")
    return room, unquote(name)


class Server(ThreadingHTTPServer):
    """Serves a site on a port of the loopback address, 0 for any that is free. OSError when it is taken."""

    def __init__(self, site: Site, port: int, warn: Callable[[str], None]) -> None:
        self.site = site
        self.warn = warn
        self.policy = served_policy()
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that left in the middle of an answer is nobody's error."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "nx-view", ""
    timeout = IDLE
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._respond(lambda path: self.server.site.get(path))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._respond(self._answered)

    def _answered(self, path: str) -> tuple[str, bytes]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > QUESTION_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a question is JSON of a megabyte at most")
        question = self.rfile.read(int(length))
        if self.headers.get_content_type() != JSON:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a question is JSON")
        return JSON, self.server.site.answer(path, question)

    def _respond(self, made: Callable[[str], tuple[str, bytes]]) -> None:
        try:
            self._check_caller()
            kind, body = made(urlsplit(self.path).path)
        except Refused as refused:
            self.send_error(refused.status, str(refused))
        except NxError as error:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception as error:
            said = f"this is a bug: {type(error).__name__}: {error}"
            self.server.warn(said)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, said)
        else:
            self._send(HTTPStatus.OK, kind, body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """In plain words. A question may be left that nobody has read, so the connection ends."""
        self.close_connection = True
        self._send(code, "text/plain; charset=utf-8", (message or "").encode("utf-8", "replace"))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in self._headers(kind, len(body)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _headers(self, kind: str, length: int) -> dict[str, str]:
        found = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return {**found, "Connection": "close"} if self.close_connection else found

    def _check_caller(self) -> None:
        """Under whatever port: it may come through a tunnel. Refused."""
        host = self.headers.get("Host", "")
        if host.rpartition(":")[0] not in NAMES and host not in NAMES:
            raise Refused(HTTPStatus.FORBIDDEN, f"this server is called {' or '.join(sorted(NAMES))}")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(HTTPStatus.FORBIDDEN, "another page asks")

    def log_message(self, *_: Any) -> None:
        """Nothing: a terminal is no log."""
