"""Pictures of the report and the terminal for the docs, in docs/images: `make screenshots` after `make demo`.

    python docs/screenshots.py demo/scored.jsonl

The start page is that of the demo. The unit is connected and silenced before, so that there is more to see.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
SUBJECT = ["--subject", str(ROOT / "samples" / "pydoc-1m")]
SHOWN = b'"layer":1,"index":287,'  # waits for conditions
TEXT = "If the file cannot be opened, an OSError is raised and nothing is written."
BESIDE = 100  # units of the run on each side of it, in its report
WINDOW = {"width": 1360, "height": 980}

sys.path.append(str(ROOT / "tests"))

from browsing import browser  # noqa: E402


def main() -> None:
    lines = Path(sys.argv[1]).read_bytes().splitlines(keepends=True)
    place = next(place for place, line in enumerate(lines) if SHOWN in line[:400])
    near = lines[max(0, place - BESIDE) : place + BESIDE]
    steps = [["nx-score", "--method", "ablation", *SUBJECT], ["nx-connect", *SUBJECT]]
    more = piped(steps, lines[place])
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder, "start.html"), Path(folder, "unit.html")
        piped([["nx-view", "--text", TEXT, *SUBJECT, "-o", str(whole)]], b"".join(lines))
        piped([["nx-view", "-o", str(part)]], b"".join(near).replace(lines[place], more))
        photographed(whole, "start", "#/", ".units tbody tr")
        photographed(whole, "text", "#/text", ".under a")
        photographed(part, "unit", "#/unit/1:287", ".excerpt")
    in_terminal(more)


def piped(commands: list[list[str]], given: bytes) -> bytes:
    """What the last of some commands prints that read what the one before printed."""
    for name, *options in commands:
        path = str(Path(sys.executable).with_name(name))
        given = subprocess.run([path, "-q", *options], input=given, check=True, stdout=subprocess.PIPE).stdout
    return given


def photographed(report: Path, name: str, address: str, ready: str) -> None:
    """In light and in dark colours, when `ready` is there."""
    with browser() as opened:
        for theme in ("light", "dark"):
            page = opened.new_page(viewport=WINDOW, color_scheme=theme)  # type: ignore[arg-type]
            page.goto(f"{report.as_uri()}{address}")
            page.wait_for_selector(ready)
            page.wait_for_timeout(300)  # charts are drawn when their width is known
            path = IMAGES / f"{name}-{theme}.png"
            page.screenshot(path=path)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def in_terminal(unit: bytes) -> None:
    """What a terminal of 80 columns shows of a unit, drawn as a browser draws text."""
    from rich.console import Console
    from rich.text import Text

    os.environ |= {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color", "COLUMNS": "80"}
    shown = Text.from_ansi(piped([["nx-view", "--random", "1", "--excerpts", "2"]], unit).decode())
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(shown, no_wrap=True, crop=False, overflow="ignore")
    body = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
    style = (
        "body { background: #1c1c1c; color: #ddd; margin: 16px } pre { font: 15px/1.2 monospace; margin: 0 }"
    )
    with browser() as opened:
        page = opened.new_page(viewport={"width": 760, "height": 900})
        page.set_content(f"<style>{style}</style>{body}")
        page.screenshot(path=IMAGES / "terminal.png", full_page=True)


if __name__ == "__main__":
    main()
