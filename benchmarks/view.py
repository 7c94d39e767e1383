"""How large a report is, how long it takes to make, and how fast it is in a browser.

    python benchmarks/view.py [--subject DIR] [--text SOURCE] [--units N]

2,000 units with 20 excerpts each, simulated activations on all of them. The report is opened from disk five
times in Chromium: how long until something is painted, until the table of units is there, from a letter typed
to the rows that have it (with their layout), and from a click to a unit's page. Beside wall time stands what
the page's main thread took of a processor, which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipe import run, timed

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from browsing import browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

Taken = tuple[float, float | None]  # milliseconds: wall, CPU

TWENTY = ["--evidence", "top=5,random=5", "--validation", "top=3,random=2", "--held-out", "top=3,random=2"]
TURNS = 5
SEARCHES = ("not", "the", "def", "zzz", "re ab")
SEARCH = """(words) => {
  const field = document.querySelector('input[type=search]');
  const begun = performance.now();
  field.value = words;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  document.body.getBoundingClientRect();
  return performance.now() - begun;
}"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--excerpts", type=int, default=4000)
    parser.add_argument("--units", type=int, default=2000)
    parser.add_argument("--scored", help="Scored units that are there already, whatever they have.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scored = options.scored or made(folder, options)
        lines = Path(scored).read_bytes().splitlines(keepends=True)[: options.units]
        few = Path(folder, "few.jsonl")
        few.write_bytes(b"".join(lines))
        report = Path(folder, "report.html")
        seconds, of_cpu = timed([["nx-view", str(few), "-o", str(report)]])
        size = report.stat().st_size / 1e6
        print(f"{len(lines)} units: {size:.1f} MB, made in {seconds:.1f} s ({of_cpu:.1f} s of CPU)\n")
        print("| in the browser | ms, median and slowest | of CPU, median and slowest |\n|---|---|---|")
        for what, taken in opened(report).items():
            wall, cpu = ([one[side] for one in taken if one[side] is not None] for side in (0, 1))
            print(f"| {what} | {told(wall)} | {told(cpu)} |")


def told(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} and {max(values):.0f}" if values else ""


def made(folder: str, options: argparse.Namespace) -> str:
    """Scored units of the subject, 20 excerpts each."""
    os.environ["NXTOOLS_CACHE"] = str(Path(folder, "cache"))
    files = {n: str(Path(folder, f"{n}.jsonl")) for n in ("recorded", "units", "explained", "scored")}
    source = ["--subject", options.subject, "--excerpts", str(options.excerpts), options.text]
    run(["nx-record", *source, "-o", files["recorded"]])
    run(["nx-top", *TWENTY, files["recorded"], "-o", files["units"]])
    run(["nx-explain", files["units"], "-o", files["explained"]])
    run(["nx-score", files["explained"], "-o", files["scored"]])
    return files["scored"]


def opened(report: Path) -> dict[str, list[Taken]]:
    found: dict[str, list[Taken]] = {
        name: [] for name in ("painted", "table of units", "search", "page of a unit")
    }
    with browser() as chromium:
        for _ in range(TURNS):
            page = chromium.new_page(viewport={"width": 1360, "height": 900})
            watch = Watch(page)
            page.goto(report.as_uri(), wait_until="commit")
            page.wait_for_selector(".units tbody tr")
            found["table of units"].append(watch.taken())
            found["painted"].append((page.evaluate(PAINTED), None))
            for words in SEARCHES:
                watch = Watch(page)
                wall = page.evaluate(SEARCH, words)
                found["search"].append((wall, watch.taken()[1]))
            page.evaluate(SEARCH, "")
            watch = Watch(page)
            page.locator(".units tbody a").nth(30).click()
            page.wait_for_selector(".excerpt")
            found["page of a unit"].append(watch.taken())
            page.close()
    return found


class Watch:
    """Wall time, and what the page's main thread takes of a processor: milliseconds since it was made."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._begun = time.perf_counter(), self._ticks()

    def _ticks(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    def taken(self) -> Taken:
        wall = time.perf_counter()
        return 1000 * (wall - self._begun[0]), 1000 * (self._ticks() - self._begun[1])


if __name__ == "__main__":
    main()
