"""What a unit is scored with: its explanations, and beside them the baselines and the null.

A *series* is one kind of prediction that is followed over all units of a run: `explanation`, `token-table`,
`token-list`, and `null`, the explanation of the unit before it in its layer; `corpus-table` and `weights`
where nx-record made them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.pattern.execute import execute, run
from nxtools.pattern.language import parse
from nxtools.pattern.lexicon import Lexicon
from nxtools.records import SETS
from nxtools.score import figures
from nxtools.score.expected import Expected
from nxtools.score.figures import Sample, Scored
from nxtools.score.fit import Paired, fits
from nxtools.score.replicates import packed
from nxtools.score.summary import replicates
from nxtools.score.whole import Kept, Weights, weights
from nxtools.simulate import tables
from nxtools.simulate.rounding import ceiling
from nxtools.simulate.tables import TokenValues, WeightValues
from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Shown, Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared
    from nxtools.recordings.table import Column

VERSION = 3  # of the question: raise it when a score would come out differently
SERIES = ("explanation", "token-table", "token-list", "null")
# Series that only a recording with such a table has.
TABLES = {"corpus-table": "corpus", "weights": "weights", "weights-position": "weights"}
SCORED_ON = "held-out"
CALIBRATED_ON = "validation"

Activations = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """One prediction of one unit to be scored: a pattern's text, simulated activations, or a baseline.

    sign: the side that was simulated, "+" for one of both; None where the simulator does not round.
    """

    target: Target
    series: str
    text: str | None = None
    expected: Expected | None = None
    sign: str | None = None
    literals: int = 30
    calibration: str | None = None  # one of calibration.KINDS: what else is said then, `fit` says


class Target:
    """A unit with its random pool and its columns of tables, which are looked up when a score needs them."""

    def __init__(
        self,
        unit: Unit,
        pool_of: Callable[[Unit], Shared | None],
        table_of: Callable[[Unit, str], Column | None] = lambda unit, name: None,
    ) -> None:
        self.unit = unit
        self._pool_of = pool_of
        self._table_of = table_of
        self._baselines: dict[int, tuple[TokenValues, TokenValues]] = {}

    @cached_property
    def pool(self) -> Shared | None:
        return self._pool_of(self.unit)

    @cached_property
    def held_out(self) -> Shown:
        return self.unit.shown(SCORED_ON)

    @cached_property
    def lexicon(self) -> Lexicon:
        return Lexicon(self.unit.vocabulary) if self.pool is None else self.pool.lexicon

    @cached_property
    def pooled(self) -> Activations | None:
        """True activations (excerpts, tokens) on the held-out part of the pool."""
        return None if self.pool is None else self.pool.activations(self.unit, SCORED_ON)

    @cached_property
    def peak(self) -> float:
        """The largest magnitude in the evidence on the side that is explained, with its sign."""
        values = self.unit.shown("evidence").table.activations
        if not np.isfinite(values).any():
            return 0.0
        return float(np.nanmin(values) if self.unit.sign == "-" else np.nanmax(values))

    @cached_property
    def weights(self) -> Weights | None:
        """What the held-out excerpts of line and pool stand for."""
        pool, shown = self.pool, self.held_out
        if pool is None or self.pooled is None:
            return None
        return weights(
            Kept(shown.excerpts, shown.table.activations),
            shown.picks,
            shown.probabilities,
            Kept(pool.names(SCORED_ON), self.pooled),
            pool.pool.sizes[SETS.index(SCORED_ON)],
            signed=self.unit.sign != "+",
        )

    def has_table(self, series: str) -> bool:
        """Whether a series of TABLES is there; positions say nothing where the subject turns its keys."""
        column = self._table_of(self.unit, TABLES[series])
        return column is not None and (series != "weights-position" or column.positions is not None)

    def table(self, series: str) -> TokenValues | WeightValues:
        """What a table of TABLES predicts. ValueError where there is none."""
        column = self._table_of(self.unit, TABLES[series])
        if column is None:
            raise ValueError(f"no {TABLES[series]} table is at hand")
        if series == "corpus-table":
            return tables.of_corpus(column.tokens, column.count, column.values)
        return WeightValues(column.values, column.positions if series == "weights-position" else None)

    def baselines(self, literals: int) -> tuple[TokenValues, TokenValues]:
        """The token table and the token list of so many literals."""
        if literals not in self._baselines:
            pool = self.pool
            evidence, validation = (
                tables.Excerpts(
                    shown.table.ids,
                    shown.table.activations,
                    shown.picks,
                    None if pool is None else pool.activations(self.unit, which),
                )
                for which in ("evidence", "validation")
                for shown in [self.unit.shown(which)]
            )
            index = tables.PoolIndex() if pool is None else pool.tokens
            self._baselines[literals] = tables.learn(index, evidence, validation, literals)
        return self._baselines[literals]


def question(
    job: Job, digests: Mapping[str, str], pool: str | None, table: list[Any] | None = None
) -> Record:
    """All that a score depends on.

    digests: of the unit's excerpts, by set; pool: that of the pool that is at hand; table: what names the
    unit's column of the table that is scored.
    """
    unit = job.target.unit
    fields: Record = {
        "unit": unit.name,
        "series": job.series,
        "scored_on": digests[SCORED_ON],
        "pool": None if pool is None or unit.pool is None else [pool, unit.pool["column"]],
    }
    if job.calibration is not None:
        fields["calibration"] = [job.calibration, digests["evidence"], digests[CALIBRATED_ON]]
    if job.text is not None:
        fields["text"] = job.text
    elif job.expected is not None:
        fields["expected"] = job.expected.question()
        fields["sign"] = job.sign
    elif job.series in TABLES:
        fields["table"] = table
    else:
        fields["literals"] = job.literals
        fields["learned_from"] = [digests["evidence"], digests["validation"]]
    return fields


def score(jobs: Sequence[Job]) -> list[Record | Failure]:
    """For each job what goes on the unit line (`score`), and what the summary needs of it (`replicates`)."""
    samples: list[Sample | Failure] = [_sample(job) for job in jobs]
    scored = iter(figures.score_block([s for s in samples if isinstance(s, Sample)]))
    made = [s if isinstance(s, Failure) else next(scored) for s in samples]
    drawn = iter(replicates([one for one in made if isinstance(one, Scored)]))
    return [
        one
        if isinstance(one, Failure)
        else {
            "score": figures.as_record(one) | _of_simulation(job) | _fits(job, sample),
            "replicates": packed(next(drawn)),
        }
        for job, sample, one in zip(jobs, samples, made, strict=True)
    ]


def _fits(job: Job, sample: Sample | Failure) -> Record:
    """How near the calibrated prediction comes, if that is asked for."""
    if job.calibration is None or isinstance(sample, Failure):
        return {}
    return fits(sample, _validation(job), job.calibration, job.target.peak)


def _validation(job: Job) -> Paired | None:
    """Prediction and truth on validation; None for a simulation that has nothing there."""
    target = job.target
    shown, pool = target.unit.shown(CALIBRATED_ON), None
    if job.expected is not None:
        predicted = job.expected.on(shown)
        if np.isnan(predicted).all():
            return None
    else:
        predict = predictor(job)
        predicted = predict.excerpts(shown.table.ids)
        if target.pool is not None:
            truth = target.pool.activations(target.unit, CALIBRATED_ON)
            pool = predict.pool(target.pool, CALIBRATED_ON), truth
    return Paired(predicted, shown.table.activations, shown.picks, pool)


def _of_simulation(job: Job) -> Record:
    """What else a simulation by a language model is judged by: tokens that it gave no number for, and the
    `ceiling`, the score of a perfect simulator that has to round to 0 … 10 as well.
    """
    if job.expected is None or job.sign is None:
        return {}
    shown = job.target.held_out
    found: Record = {}
    failed = int((np.isnan(job.expected.on(shown)) & ~np.isnan(shown.table.activations)).sum())
    if failed:
        found["failed_tokens"] = failed
    rows = [place for place, pick in enumerate(shown.picks) if pick in ("top", "random")]
    best = ceiling(shown.table.activations[rows], job.sign)
    return found | {"ceiling": None if best is None else figures.short(best)}


def _sample(job: Job) -> Sample | Failure:
    target = job.target
    shown, pool = target.held_out, None if job.expected is not None else target.pool
    scored_pool = None
    try:
        predict = predictor(job)
        if pool is not None and target.pooled is not None:
            documents = tuple(pool.pool.documents_of(SCORED_ON))
            scored_pool = figures.Pool(target.pooled, predict.pool(pool, SCORED_ON), documents)
        predicted = predict.excerpts(shown.table.ids)
    except InputError as error:
        return Failure("score", "no-pattern", str(error))
    except ValueError as error:
        return Failure("score", "no-evidence", str(error))
    return Sample(
        target.unit.name,
        shown.table.activations,
        predicted,
        shown.picks,
        shown.documents,
        scored_pool,
        None if scored_pool is None else target.weights,
    )


class Predictor(NamedTuple):
    """Predicts excerpts by their ids (E, T), and a set's part of the pool."""

    excerpts: Callable[[NDArray[Any]], Activations]
    pool: Callable[[Shared, str], Activations]


def predictor(job: Job) -> Predictor:
    target = job.target
    if job.text is not None:
        pattern, lexicon = parse(job.text), target.lexicon
        return Predictor(
            lambda ids: execute(pattern, ids, lexicon), lambda pool, which: run(pattern, pool.text(which))
        )
    predict = _by_token(job)
    return Predictor(predict, lambda pool, which: predict(pool.pool.ids(which)))


def by_ids(job: Job) -> Callable[[NDArray[Any]], Activations]:
    """What predicts excerpts by their ids. InputError for what is no pattern, ValueError without evidence."""
    return predictor(job).excerpts


def _by_token(job: Job) -> Callable[[NDArray[Any]], Activations]:
    target = job.target
    if job.expected is not None:
        expected = job.expected
        return lambda ids: expected.on(target.held_out)
    if job.series in TABLES:
        return target.table(job.series).predict
    table, named = target.baselines(job.literals)
    chosen = table if job.series == "token-table" else named
    return chosen.predict
