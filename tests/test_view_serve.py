"""nx-view --serve: the pages of the file from an index of lines, to browsers on this machine alone."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from browsing import browser, watched
from conftest import Ran, Run
from viewed import LAYERS, PER_LAYER, lines, unit

from nxtools.errors import InputError
from nxtools.stream import dump
from nxtools.view.html import _embedded
from nxtools.view.index import Index
from nxtools.view.model import page, row
from nxtools.view.report import Report
from nxtools.view.serve import QUESTION_BYTES, Server, Site

Record = dict[str, Any]
UNITS = LAYERS * PER_LAYER


class Served:
    """A running nx-view --serve, and what it answers."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.warned: list[str] = []
        assert process.stdout is not None
        self.url = process.stdout.readline().decode().rstrip()
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", self.url)
        assert match, self.url
        self.port = int(match[1])

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def json(self, path: str) -> Any:
        status, _, body = self.ask(path)
        assert status == 200, body
        return orjson.loads(body)


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path, environment: dict[str, str]) -> Serve:
    @contextmanager
    def serve(*words: object, stdin: Any = subprocess.DEVNULL) -> Iterator[Served]:
        process = subprocess.Popen(
            ["nx-view", "--serve", "--port", "0", *map(str, words)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            yield Served(process)
        finally:
            process.kill()
            process.communicate()

    return serve


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "units.jsonl"
    path.write_bytes(b"".join(map(dump, lines())))
    return path


# What it serves


def test_it_serves_what_the_file_has(made: Path, serve: Serve, run: Run) -> None:
    """The same overview and rows, and for every unit the same page."""
    with serve(made) as served:
        start = served.ask("/")[2].decode()
        rows = served.json("/rows")
        pages = {one["address"]: served.json(f"/units/{quote(one['address'], safe='')}") for one in rows}
    report = Report()
    for line in made.read_bytes().splitlines():
        report.add(orjson.loads(line))
    assert _embedded(report._overview.data()) in start
    assert [one["address"] for one in rows] == [one["address"] for one in report._rows]
    for one, other in zip(rows, report._rows, strict=True):
        assert one == {key: value for key, value in orjson.loads(dump(other)).items() if key != "chunk"}
    records = {row(line)["name"]: line for line in map(orjson.loads, made.read_bytes().splitlines())}
    for address, found in pages.items():
        here = orjson.loads(dump(page(records[address])))
        different = {key for key in found if found[key] != here[key]}
        # Patterns that nobody has simulated are run for what is looked at.
        assert different <= {"simulations", "groups", "missing"}
    assert pages["1:5"]["simulations"] and "simulations" not in pages["1:5"]["missing"]


def test_ctrl_c_ends_it_cleanly(made: Path, serve: Serve) -> None:
    with serve(made) as served:
        os.kill(served.process.pid, signal.SIGINT)
        out, err = served.process.communicate(timeout=20)
    assert (served.process.returncode, out) == (0, b"")
    assert err.decode().splitlines()[-2:] == ["nx-view: 120 units; Ctrl-C ends it", "nx-view: ended"]


@pytest.mark.parametrize("name", ["units.jsonl.zst", "-", "a pipe"])
def test_pipes_and_compressed_files_are_served_too(made: Path, serve: Serve, run: Run, name: str) -> None:
    if name.endswith(".zst"):
        import zstandard

        made = made.with_name(name)
        made.write_bytes(zstandard.compress(b"".join(map(dump, lines()))))
        given, stdin = [made], subprocess.DEVNULL
    elif name == "-":
        given, stdin = ["-"], made.open("rb")
    else:
        pipe = made.with_name("pipe")
        os.mkfifo(pipe)
        subprocess.Popen(["cp", made, pipe])
        given, stdin = [pipe], subprocess.DEVNULL
    with serve(*given, stdin=stdin) as served:
        assert served.json("/units/2%3A7")["name"] == "2:7"
        assert len(served.json("/rows")) == UNITS


def test_several_files_are_one_report(made: Path, serve: Serve, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(dump(unit(0, 5, " if")) + b"\n" + dump(unit(7, 7, " not")))
    with serve(made, other) as served:
        addresses = [one["address"] for one in served.json("/rows")][-2:]
        assert addresses == ["mlp/0:5", "7:7"]
        for address in addresses:
            assert served.json(f"/units/{quote(address, safe='')}")["name"] == address[-3:]


def test_a_file_that_changes_is_said_to_have_changed(made: Path, serve: Serve) -> None:
    with serve(made) as served:
        assert served.ask("/units/0:5")[0] == 200
        with made.open("ab") as file:
            file.write(dump(unit(9, 9, " not")))
        status, _, body = served.ask("/units/0:5")
        assert (status, body.decode()) == (
            409,
            f"{made}: has changed since it was read (start nx-view again)",
        )
        made.unlink()
        assert served.ask("/units/0:5")[0] == 409
        assert served.ask("/rows")[0] == 200


# Whom it serves


def test_it_knows_no_paths_but_its_own(made: Path, serve: Serve) -> None:
    paths = (
        "/units", "/units/", "/units/9:9", "/rows/", "/rows/x", "/static/base.js", "/../units.jsonl",
        "/units.jsonl", "/%2e%2e/units.jsonl", "/units/..%2Funits.jsonl", "/parts/x", "/answers/x", "/x",
    )  # fmt: skip
    with serve(made) as served:
        assert {path: served.ask(path)[0] for path in paths} == dict.fromkeys(paths, 404)
        assert served.ask("/?x=1")[0] == 200
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
            status, headers, _ = served.ask("/rows", method)
            assert status == 501 and headers["Content-Type"].startswith("text/plain")
        status, headers, body = served.ask("/", "HEAD")
        assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 100_000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "127.0.0.1:9999"}, 200),  # through a tunnel
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:127.0.0.1"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_a_page_from_elsewhere_gets_nothing(site: Served, headers: dict[str, str], status: int) -> None:
    for path in ("/", "/rows", "/units/0:5"):
        found, sent, body = site.ask(path, **headers)
        assert found == status
        assert status == 200 or len(body) < 100
        assert "Access-Control-Allow-Origin" not in sent


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="there is no table of sockets to read")
def test_it_listens_on_the_loopback_address_alone(site: Served) -> None:
    """Read from the kernel's table of sockets: 0100007F is 127.0.0.1."""
    listening = [
        line.split()[1]
        for name in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(name).exists()  # of IPv6 there may be none
        for line in Path(name).read_text(encoding="ascii").splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{site.port:04X}")
    ]
    assert listening == [f"0100007F:{site.port:04X}"]


def test_every_answer_has_a_strict_policy(site: Served) -> None:
    for path in ("/", "/rows", "/units/0:5", "/nothing"):
        headers = site.ask(path)[1]
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert re.fullmatch(r"('sha256-[\w+/=]+' ?)+", policy["script-src"])
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Python" not in headers["Server"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server in this process, with something to answer."""
    import threading

    path = tmp_path_factory.mktemp("served") / "units.jsonl"
    path.write_bytes(b"".join(map(dump, lines())))

    def answer(asked: Any) -> Any:
        if asked == "nothing":
            raise InputError("there is nothing in it")
        return {"heard": asked / 1 if asked == "a bug" else asked}

    warned: list[str] = []
    built = Site(Index([str(path)]), parts={"texts": lambda: ["a part"]}, answers={"echo": answer})
    with Server(built, 0, warned.append) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        served = Served.__new__(Served)
        served.port, served.url, served.warned = server.server_port, server.url, warned
        yield served
        server.shutdown()
        thread.join()


def test_questions_are_answered_in_json(site: Served) -> None:
    def ask(body: bytes, **headers: str) -> tuple[int, bytes]:
        kind = {"Content-Type": "application/json"}
        status, _, answer = site.ask("/answers/echo", "POST", body, **(kind | headers))
        return status, answer

    assert ask(b'["He did"]') == (200, b'{"heard":["He did"]}\n')
    assert ask(b"{") == (400, b"a question is JSON")
    assert ask(b'"nothing"') == (400, b"there is nothing in it")
    assert ask(b"{}", **{"Content-Type": "text/plain"})[0] == 415  # what a form elsewhere could send
    assert ask(b"{}", Origin="http://evil.example")[0] == 403
    assert ask(b"", **{"Content-Length": str(QUESTION_BYTES + 1)})[0] == 413  # before it is sent
    assert ask(b'"a bug"')[0] == 500
    assert site.warned == ["this is a bug: TypeError: unsupported operand type(s) for /: 'str' and 'int'"]
    assert site.json("/parts/texts") == ["a part"]
    assert site.ask("/answers/echo")[0] == 404


# Inputs


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"kind":"unit"}\n', "units.jsonl:1: the field 'v' is missing"),
        (b"\n\nno\n", "units.jsonl:3: not JSON"),
        (dump(unit(0, 0, " not")) + b'{"kind":"un', "units.jsonl:2: the last line has no newline"),
        (
            dump(unit(0, 0, " not") | {"explanations": 7}),
            "units.jsonl:1: the field 'explanations' is an integer",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, run: Run, content: bytes, said: str) -> None:
    (tmp_path / "units.jsonl").write_bytes(content)
    done: Ran = run("nx-view", "--serve", "--port", "0", tmp_path / "units.jsonl")
    assert (done.returncode, done.stdout) == (3, b"")
    assert said in done.stderr.decode()


def test_keep_going_leaves_lines_out(made: Path) -> None:
    made.write_bytes(b"no\n" + dump(unit(0, 0, " not")) + b"{}\n" + dump(unit(0, 1, " not")))
    bad: list[str] = []
    index = Index([str(made)], keep_going=True, on_bad=lambda error: bad.append(error.where))
    assert [one["address"] for one in index.rows] == ["0:0", "0:1"]
    assert bad == [f"{made}:1", f"{made}:3"] and index.skipped == 2
    assert index["0:1"]["unit"]["index"] == 1


def test_nothing_to_serve_is_served(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with serve("empty.jsonl") as served:
        assert served.json("/rows") == []
        assert served.ask("/")[0] == 200


def test_a_port_that_is_taken_is_said(site: Served, made: Path, run: Run) -> None:
    done = run("nx-view", "--serve", "--port", site.port, made)
    assert done.returncode == 2 and b"--port 0 takes any that is free" in done.stderr
    assert run("nx-view", "--port", "0", made).returncode == 2
    assert run("nx-view", "--serve", "-o", "x.html", made).returncode == 2


# In a browser


def test_a_browser_reads_units_when_they_are_looked_at(made: Path, serve: Serve) -> None:
    with serve(made) as served, browser() as opened:
        page = opened.new_page()
        page.set_default_timeout(10_000)
        seen = watched(page)
        page.goto(served.url)
        page.wait_for_selector(".units tbody tr")
        page.get_by_role("searchbox").first.fill("boat")
        found = page.locator(".units tbody th")
        page.wait_for_function("() => document.querySelectorAll('.units tbody tr').length < 100")
        name = found.first.inner_text()
        found.first.get_by_role("link").click()
        page.wait_for_function(
            "name => document.querySelector('h1')?.textContent === `Unit ${name}`", arg=name
        )
        assert page.evaluate("location.hash").startswith("#/unit/")
        assert page.evaluate("typeof pwned") == "undefined"
        asked = [line for line in seen if line.startswith("request: ")]
        assert [line for line in seen if line not in asked] == []
        with made.open("ab") as file:
            file.write(b"\n")
        page.goto(f"{served.url}#/unit/2:9")
        page.get_by_text("has changed since it was read (start nx-view again)").wait_for()
        served.process.kill()
        page.goto(f"{served.url}#/unit/2:10")
        page.get_by_text("nx-view no longer answers: start it again").wait_for()
    assert all(line.removeprefix("request: ").startswith(served.url) for line in asked)
    assert f"request: {served.url}units/{quote(name, safe='')}" in asked
    assert len([line for line in asked if "/units/" in line]) <= 3  # and not all of them
