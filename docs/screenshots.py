"""Pictures of the report for the docs, in docs/images: `make screenshots`, after `make demo`.

    python docs/screenshots.py demo/scored.jsonl

Every neuron of the demo is in that report; a few are revised, connected and silenced, too, so that there is
something to see of everything.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
SUBJECT = ["--subject", str(ROOT / "samples" / "pydoc-1m")]
SHOWN = "1:287"  # waits for conditions
EVERY = 64  # of the units are revised
PLACE = re.compile(rb'"layer":(\d+),"index":(\d+)')
WINDOW = {"width": 1360, "height": 980}

sys.path.append(str(ROOT / "tests"))

from browsing import browser  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.html")
        some, all_of_it = Path(folder, "some.jsonl"), Path(folder, "all.jsonl")
        lines = Path(sys.argv[1]).read_bytes().splitlines(keepends=True)
        chosen = {
            name for place, line in enumerate(lines) if (name := named(line)) == SHOWN or not place % EVERY
        }
        some.write_bytes(b"".join(line for line in lines if named(line) in chosen))
        steps = [
            ["nx-revise", *SUBJECT, str(some)],
            ["nx-score", "--method", "correlation"],
            ["nx-score", "--method", "ablation", *SUBJECT],
            ["nx-connect", *SUBJECT],
        ]
        more = {named(line): line for line in piped(steps).splitlines(keepends=True)}
        all_of_it.write_bytes(b"".join(more.get(named(line), line) for line in lines))
        piped([["nx-view", "-o", str(report), str(all_of_it)]])
        IMAGES.mkdir(exist_ok=True)
        photographed(report)


def named(line: bytes) -> str:
    """`1:287`, without reading the line."""
    found = PLACE.search(line)
    assert found, "this is no unit line"
    return f"{int(found[1])}:{int(found[2])}"


def piped(commands: list[list[str]]) -> bytes:
    """What the last of some commands prints that read what the one before printed."""
    given = b""
    for name, *options in commands:
        path = str(Path(sys.executable).with_name(name))
        given = subprocess.run([path, "-q", *options], input=given, check=True, stdout=subprocess.PIPE).stdout
    return given


def photographed(report: Path) -> None:
    with browser() as opened:
        for theme in ("light", "dark"):
            page = opened.new_page(viewport=WINDOW, color_scheme=theme)  # type: ignore[arg-type]
            for name, address, ready in (
                ("start", "#/", ".units tbody tr"),
                ("unit", f"#/unit/{SHOWN}", ".excerpt"),
            ):
                page.goto("about:blank")
                page.goto(f"{report.as_uri()}{address}")
                page.wait_for_selector(ready)
                page.wait_for_timeout(300)  # charts are drawn when their width is known
                path = IMAGES / f"{name}-{theme}.png"
                page.screenshot(path=path)
                print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
