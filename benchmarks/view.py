"""How large a report is, how long it takes to make, and how fast it is in a browser.

    python benchmarks/view.py [--subject DIR] [--text SOURCE] [--units N]

2,000 units with 20 excerpts each, simulated activations on all of them. The report is opened from disk five
times in Chromium: how long until something is painted, until the table of units is there, from a letter typed
to the rows that have it (with their layout), and from a click to a unit's page.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pipe import run, timed

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from browsing import browser

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
        wall, cpu = timed([["nx-view", str(few), "-o", str(report)]])
        size = report.stat().st_size / 1e6
        print(f"{len(lines)} units: {size:.1f} MB, made in {wall:.1f} s ({cpu:.1f} s of CPU)\n")
        print("| in the browser | ms, median | fastest | slowest |\n|---|---|---|---|")
        for what, taken in opened(report).items():
            print(f"| {what} | {statistics.median(taken):.0f} | {min(taken):.0f} | {max(taken):.0f} |")


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


def opened(report: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {
        name: [] for name in ("first contentful paint", "table of units", "search", "page of a unit")
    }
    with browser() as chromium:
        for _ in range(TURNS):
            page = chromium.new_page(viewport={"width": 1360, "height": 900})
            begun = time.perf_counter()
            page.goto(report.as_uri(), wait_until="commit")
            page.wait_for_selector(".units tbody tr")
            found["table of units"].append(1000 * (time.perf_counter() - begun))
            found["first contentful paint"].append(page.evaluate(PAINTED))
            found["search"] += [page.evaluate(SEARCH, words) for words in SEARCHES]
            page.evaluate(SEARCH, "")
            begun = time.perf_counter()
            page.locator(".units tbody a").nth(30).click()
            page.wait_for_selector(".excerpt")
            found["page of a unit"].append(1000 * (time.perf_counter() - begun))
            page.close()
    return found


if __name__ == "__main__":
    main()
