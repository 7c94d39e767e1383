"""`make bench`: all benchmarks one after another. Figures that were seen are in docs/benchmarks.md.

SUBJECT, TEXT and SEPARATOR in the environment add another subject: a folder, its text, and the line that
parts the documents in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    subject, text, separator = (os.environ.get(name) for name in ("SUBJECT", "TEXT", "SEPARATOR"))
    run("recording.py", "--subject", "gpt2-small", "--excerpts", "2048")
    run("recording.py", "--subject", "samples/pydoc-1m", "python-docs")
    run("recording.py", "--subject", "samples/pydoc-1m", "--memory", "2000,20000", "python-docs")
    run("pipe.py")
    run("reports.py")
    run("view.py")
    run("serving.py")
    run("connecting.py")
    run("quality.py")
    run("baselines.py")
    run("coverage.py")
    run("revising.py")
    run("assistant.py")
    if subject and text:
        parted = ["--separator", separator] if separator else []
        run("recording.py", "--subject", subject, *parted, text)
        run("quality.py", "--subject", subject, "--text", text, *parted)
        run("baselines.py", "--subject", subject, "--text", text, *parted)
        run("revising.py", "--subject", subject, "--text", text, *parted, "--every", "19")


def run(name: str, *arguments: str) -> None:
    print(f"\n## {name} {' '.join(arguments)}\n", flush=True)
    subprocess.run([sys.executable, str(HERE / name), *arguments], check=True)


if __name__ == "__main__":
    main()
