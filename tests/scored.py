"""Scored unit lines as nx-score writes them, from activations and predictions drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nxtools.score.figures import Sample, Scored, as_record, score_block
from nxtools.score.replicates import packed
from nxtools.score.summary import replicates

PICKS = ("top",) * 3 + ("random",) * 3
Record = dict[str, Any]

PATTERN = {"explainer": "pattern", "version": 1, "literals": 30}


def samples(count: int = 40, seed: int = 0, skill: float = 0.7, documents: int = 30) -> list[Sample]:
    """Units on documents drawn from a few, some of which are hard to predict for every unit.

    Truth and documents depend on the number of the unit alone, predictions on seed and skill too.
    """
    noise = np.random.default_rng(1).uniform(0.2, 2.0, documents)
    made = []
    for unit in range(count):
        rng = np.random.default_rng([2, unit])
        rows = rng.permutation(documents)[: len(PICKS)]
        truth = rng.normal(size=(len(PICKS), 16))
        error = np.random.default_rng([3, unit, seed]).normal(size=truth.shape)
        predicted = skill * truth + noise[rows][:, None] * error
        names = [f"document {row}" for row in rows]
        made.append(
            Sample(full_name(unit), truth.astype(np.float32), predicted.astype(np.float32), PICKS, names)
        )
    return made


def full_name(index: int) -> str:
    return f"sha256:0 mlp {index % 2} {index} +"


def scores(samples: list[Sample]) -> list[Scored]:
    return score_block(samples, draws=50)


def score_records(scored: list[Scored], simulator: str = "pattern") -> list[Record]:
    """What stands under `scores`."""
    return [
        as_record(one) | {"simulator": simulator, "replicates": packed(drawn)}
        for one, drawn in zip(scored, replicates(scored), strict=True)
    ]


def lines(
    explained: Mapping[int, Record] | list[Record],
    baselines: Mapping[str, list[Record]] | None = None,
    by: Record = PATTERN,
) -> list[Record]:
    """Unit lines with these scores; explained: by the number of the unit."""
    of_unit = explained if isinstance(explained, Mapping) else dict(enumerate(explained))
    found = []
    for index, score in of_unit.items():
        sample = samples(index + 1)[index]
        line: Record = {
            "kind": "unit",
            "v": 1,
            "unit": {
                "fingerprint": "sha256:0",
                "site": "mlp",
                "layer": index % 2,
                "index": index,
                "sign": "+",
            },
            "excerpts": [
                {"id": f"{index} {place}", "document": name, "ids": [7], "tokens": ["x"]}
                | {"activations": [0.5], "set": "held-out", "pick": pick, "rank": place}
                for place, (name, pick) in enumerate(zip(sample.documents, PICKS, strict=True))
            ],
            "explanations": [{"id": "0", "text": "…", "by": by, "scores": [score]}],
        }
        if baselines:
            line["baselines"] = [{"name": name, "scores": [rows[index]]} for name, rows in baselines.items()]
        found.append(line)
    return found


def without_replicates(records: list[Record]) -> list[Record]:
    return [{key: value for key, value in record.items() if key != "replicates"} for record in records]
