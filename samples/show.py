"""Prints the best explained units of a scored file, for those who have no jq at hand."""

from __future__ import annotations

import sys

import orjson

SHOWN = 12
WIDTH = 100


def main(path: str) -> None:
    rows = []
    with open(path, "rb") as lines:  # noqa: PTH123
        for line in lines:
            unit = orjson.loads(line)
            for explanation in unit.get("explanations", [])[:1]:
                score = (explanation.get("scores") or [{}])[0].get("top_and_random")
                if score is not None:
                    name = f"{unit['unit']['layer']}:{unit['unit']['index']}"
                    rows.append((score, name, explanation["text"]))
    rows.sort(reverse=True)
    print(f"{len(rows)} units are explained in {path}. The best:\n")
    for score, name, text in rows[:SHOWN]:
        print(f"  {score:.2f}  {name:>6}  {text if len(text) <= WIDTH else text[: WIDTH - 1] + '…'}")
    print(f'\nEverything about unit 2:41:  grep \'"layer":2,"index":41,\' {path}')


if __name__ == "__main__":
    main(sys.argv[1])
