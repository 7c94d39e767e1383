"""Unit lines to look at: many plain ones, a few that have all that a page can show, and hostile strings."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

Record = dict[str, Any]

WORDS = (" not", " the", " river", " boat", " if", ",", ".", " three", "\n", " shore", " one", " of")
SETS = {"evidence": 4, "validation": 3, "held-out": 4}
LAYERS, PER_LAYER, WIDTH = 3, 40, 12
SCRIPT = "</script><img src=x onerror=pwned=1><script>pwned=1</script>"
HOSTILE = (
    SCRIPT,
    "\u202e reversed",
    "\ud800",
    "'\"><b onmouseover=pwned=1>",
    "${pwned=1}{{7*7}}",
    "\u2028",
    "",
    "\u0301x",
)
FIRES_ON = " not"  # of unit 1:7, the one that has everything


def unit(
    layer: int, index: int, word: str, *, sign: str = "+", vocabulary: tuple[str, ...] = WORDS
) -> Record:
    """A unit that is strong on a word, and a little on the token behind it."""
    rng = np.random.default_rng([layer, index])
    excerpts = []
    for which, size in SETS.items():
        for pick in ("top", "random", *(("bottom", "spread") if sign == "+-" else ())):
            for rank in range(size):
                tokens = [vocabulary[place] for place in rng.integers(0, len(vocabulary), WIDTH)]
                if pick != "random":
                    tokens[int(rng.integers(1, WIDTH))] = word
                values = rng.normal(0, 0.1, WIDTH).round(3)
                strong = np.array([token == word for token in tokens])
                values[strong] += (-2 if pick == "bottom" else 3) + rng.normal(0, 0.4, strong.sum()).round(3)
                activations = [None, *(round(float(value), 3) for value in values[1:])]
                excerpts.append(
                    {
                        "id": f"{zlib.crc32(repr((layer, index, which, pick, rank)).encode()):08x}",
                        "document": f"document-{which}-{rank}",
                        "start": 64 * rank,
                        "ids": [vocabulary.index(token) if token in vocabulary else 99 for token in tokens],
                        "tokens": tokens,
                        "set": which,
                        "pick": pick,
                        "rank": rank,
                        "probability": 0.25 if pick == "spread" else None,
                        "activations": activations,
                    }
                )
    return {
        "kind": "unit",
        "v": 1,
        "unit": {
            "subject": "made-up",
            "fingerprint": "sha256:0",
            "site": "mlp",
            "layer": layer,
            "index": index,
            "sign": sign,
        },
        "recorded": {"dtype": "float32", "context": WIDTH, "bos": None, "plans": []},
        "stats": {
            "tokens": 1000 + index,
            "mean": 0.1,
            "variance": 1.5,
            "max": 3.0 + index / 100,
            "active": 0.01 + index / 1000,
            "maxima": {"below": 3, "edges": [0.5, 0.75, 1.0, 1.5, 2.0], "counts": [40, 0, 9, 3, 1]},
        },
        "excerpts": excerpts,
        "explanations": [
            {
                "id": f"{layer}-{index}",
                "text": f'"{word}" (10)'.replace("\n", "\\n"),
                "by": {"explainer": "person"},
                "scale": 3.0,
            }
        ],
    }


def everything(record: Record) -> Record:
    """The unit with all that later commands add."""
    told = record["explanations"][0]
    revised = {
        **told,
        "id": "revised",
        "text": '" not" (10); " the" (1)',
        "revises": told["id"],
        "versions": [
            {"text": told["text"], "made": "before", "validation": {"top": 0.8, "random": 0.7}},
            {"text": '" not" (10); " the" (1)', "round": 1, "made": "weight 1", "literals": 2},
        ],
        "current": 1,
        "why": "validation rose from 0.75 to 0.8",
        "counterexamples": [
            {"round": 1, "from": "corpus", "sort": "false-positive", "for": "reviser", "excerpt": "x"}
            | {"tokens": [" he", " did", " not"], "activation": 0.1, "expected": 3.0}
        ],
        "sentences": [
            {"round": 1, "text": "He did not.", "for": "reviser", "activation": 3.25, "fires": True},
            {"round": 1, "text": "A boat on the river.", "for": "scores", "activation": 0.2, "fires": False},
        ],
        "revision": {
            "top_and_random": {"before": 0.75, "after": 0.875},
            "widened": {"before": 0.5, "after": 0.6},
        },
    }
    weights = {"mean": 0.0, "sd": 1.0, "of": 12}
    tokens = {
        "positive": [{"id": 0, "token": " not", "weight": 2.5}],
        "negative": [{"id": 1, "token": "\n", "weight": -1.5}],
    }
    units = {"positive": [{"unit": "0:3", "weight": 1.5}], "negative": [{"unit": "9:9", "weight": -0.5}]}
    moved = [{"id": 0, "token": " not", "logit": 0.5}]
    return record | {
        "explanations": [revised, told | {"revised": True}],
        "connections": {
            "output_tokens": tokens | weights,
            "input_tokens": tokens | weights,
            "upstream": {"input": units | weights},
            "absent": {"downstream": "there is no layer behind it"},
        },
        "effects": [
            {
                "replaced_by": "mean",
                "value": 0.1,
                "top_and_random": {
                    "excerpts": 8,
                    "tokens": 88,
                    "loss": 0.25,
                    "loss_interval": [0.2, 0.3],
                    "kl": 0.5,
                    "jsd": 0.125,
                },
                "raises": moved,
                "lowers": [],
            }
        ],
    }


def hostile(record: Record) -> Record:
    """The unit with strings that would do something in a page that is not careful."""
    for place, excerpt in enumerate(record["excerpts"]):
        excerpt["tokens"] = [HOSTILE[(place + at) % len(HOSTILE)] for at in range(WIDTH)]
        excerpt["ids"] = [(place + at) % len(HOSTILE) for at in range(WIDTH)]
    record["unit"]["subject"] = f"made-up {SCRIPT}"
    record["explanations"][0] |= {"text": f"fires on {SCRIPT} and \u202e this", "by": {"explainer": SCRIPT}}
    return record


def lines() -> list[Record]:
    """120 units of three layers: 0:0 hostile, 0:1 dead, 0:2 an error, 0:4 not explained, 1:7 has it all."""
    found = [
        unit(layer, index, WORDS[(layer + index) % len(WORDS)])
        for layer in range(LAYERS)
        for index in range(PER_LAYER)
    ]
    found[0] = hostile(found[0])
    del found[1]["explanations"]
    found[1] |= {"dead": True}
    found[2] |= {"error": {"stage": "explain", "kind": "no-evidence", "message": "nothing fires"}}
    del found[4]["explanations"]
    found[PER_LAYER + 7] = everything(unit(1, 7, FIRES_ON, sign="+-"))
    return found
