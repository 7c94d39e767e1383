"""The page: template, style and scripts in one document under a strict content policy.

Nothing is loaded from anywhere. Only the scripts and the style that are printed here run, each admitted by
its digest; data stands in blocks that no browser executes, and reaches the page as text alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from nxtools.stream import Record, dump

# In the order in which they are run.
LIBRARIES = ("d3.min.js", "plot.umd.min.js")
SCRIPTS = (
    "base.js",
    "source.js",
    "charts.js",
    "heat.js",
    "selection.js",
    "table.js",
    "start.js",
    "unit.js",
    "excerpts.js",
    "revision.js",
    "numbers.js",
    "weights.js",
    "text.js",
    "rating.js",
    "main.js",
)
_HERE = files("nxtools.view")
# What would end a script element or, in old engines, a line of a script.
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def document(
    title: str, overview: Record, parts: Iterable[tuple[str, bytes]], *, served: bool = False
) -> Iterator[bytes]:
    """The document in pieces. parts: data by name as `pack.compressed` makes it, read when it is needed.

    served: the page may ask the server that it came from, and nobody else.
    """
    head, _, foot = _rendered(title, served, _embedded(overview)).partition("<!-- parts -->")
    yield head.encode()
    for name, data in parts:
        yield b'<script type="text/plain" id="part-%b">%b</script>\n' % (name.encode(), data)
    yield foot.encode()


def _rendered(title: str, served: bool, overview: str) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(_read("templates/page.html"))
    scripts, style = _scripts(), _read("static/style.css")
    return template.render(
        title=title,
        served=served,
        policy=policy(scripts, style, served),
        style=style,
        scripts=scripts,
        overview=overview,
        report=hashlib.sha256(overview.encode()).hexdigest()[:16],
    )


def _scripts() -> list[str]:
    return [*(_read(f"vendor/{name}") for name in LIBRARIES), script()]


def script() -> str:
    """All of our scripts as one, so that they see each other and nobody else sees them."""
    body = "\n".join(_read(f"static/{name}") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}\n}})();\n'


def policy(scripts: Iterable[str], style: str, served: bool) -> str:
    """The content security policy: nothing but what is named by its digest."""
    directives: Mapping[str, str] = {
        "default-src": "'none'",
        "script-src": " ".join(map(_digest, scripts)),
        "style-src": _digest(style),
        "img-src": "data:",
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def served_policy() -> str:
    """The same as a server sends it, which may say too that no page frames this one."""
    return f"{policy(_scripts(), _read('static/style.css'), True)}; frame-ancestors 'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(data: object) -> str:
    """JSON that can stand inside of a script element."""
    text = dump(data).decode().rstrip("\n")
    for character, escape in _ESCAPED.items():
        text = text.replace(character, escape)
    return text


@lru_cache(maxsize=32)
def _read(name: str) -> str:
    return _HERE.joinpath(name).read_text(encoding="utf-8")
