"""What nx-record's options ask for, and what it says about the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nxtools.errors import UsageError

if TYPE_CHECKING:
    from nxtools.commands._base import Shared
    from nxtools.errors import InputError
    from nxtools.stage import Counts
    from nxtools.subject.excerpts import Cut
    from nxtools.subject.planning import Planned, Texts
    from nxtools.subject.recording import Job
    from nxtools.subject.wanted import Model, Want


def settings(options: dict[str, Any]) -> tuple[Cut, Model, Want]:
    """How text is cut, which subject is run, and what is kept. UsageError, ModelError."""
    from nxtools.subject.excerpts import Cut
    from nxtools.subject.identity import resolve
    from nxtools.subject.twin import Twin
    from nxtools.subject.wanted import Model, Want

    pool = tuple(_numbers(options["pool"], "--pool"))
    if len(pool) != 3:
        raise UsageError("--pool takes three numbers", hint="--pool 400,200,200")
    cut = Cut(
        context=options["context"],
        excerpt=options["excerpt"],
        windows=options["windows"],
        draw=options["draw"],
        document_tokens=options["document_tokens"],
        keep_first=options["keep_first"],
        seed=options["seed"],
        pool=(pool[0], pool[1], pool[2]),
    )
    model = Model(
        resolved=resolve(options["subject"], allow_pickle=options["allow_pickle"]),
        dtype=options["dtype"],
        device=options["device"],
        module=options["module"],
        trust_remote_code=options["trust_remote_code"],
        allow_pickle=options["allow_pickle"],
        twin=Twin(options["twin"], options["seed"]) if options["twin"] else None,
    )
    want = Want(
        layers=tuple(_numbers(options["layers"], "--layers")) if options["layers"] else None,
        units=_units(options["units"]) if options["units"] else None,
        sign=options["sign"],
        top=options["top"],
        spread=options["spread"],
        batch=options["batch"],
        shard=options["shard"],
        tables=_tables(options["tables"]),
        memory=int(options["memory"]),
    )
    return cut, model, want


def _numbers(text: str, option: str) -> list[int]:
    """`0-3,7` as [0, 1, 2, 3, 7]."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            numbers = range(int(first), int(last) + 1) if dash else [int(first)]
            if not numbers:
                raise ValueError(f"{part} goes down")
            found += numbers
    except ValueError as error:
        raise UsageError(f"{option} takes numbers and ranges like 0-3,7, not {text!r}") from error
    return found


def _tables(text: str | None) -> tuple[str, ...]:
    from nxtools.subject.wanted import TABLES

    names = tuple(text.split(",")) if text else ()
    for name in names:
        if name not in TABLES:
            raise UsageError(f"no table is called {name!r}", hint="--tables " + ",".join(TABLES))
    return names


def _units(text: str) -> dict[int, list[int]]:
    """`2:41,2:42` as {2: [41, 42]}."""
    units: dict[int, list[int]] = {}
    try:
        for part in text.split(","):
            layer, _, index = part.partition(":")
            units.setdefault(int(layer), []).append(int(index))
    except ValueError as error:
        raise UsageError(f"--units takes LAYER:INDEX pairs like 2:41,2:42, not {text!r}") from error
    return {layer: sorted(set(indices)) for layer, indices in units.items()}


def texts(shared: Shared, options: dict[str, Any], counts: Counts) -> Texts:
    """The text that is named; lines that are skipped are counted."""
    from nxtools.subject.planning import Texts
    from nxtools.subject.text import Cutting

    cutting = Cutting(
        documents=options["documents"],
        separator=options["separator"],
        field=options["field"],
        encoding_errors=options["encoding_errors"],
    )

    def on_bad_line(error: InputError) -> None:
        counts.skipped += 1
        shared.on_bad(error)

    return Texts(shared.inputs, cutting, on_bad_line=on_bad_line if shared.keep_going else None)


def described(planned: Planned) -> str:
    """What there is of the text, for people."""
    from nxtools.records import SETS

    plan = planned.plan
    sets = ", ".join(f"{int((plan.set == number).sum())} {name}" for number, name in enumerate(SETS))
    left_out = ", ".join(
        f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(plan.dropped.items()) if count
    )
    return f"{len(plan.documents)} documents, {plan.size} excerpts of {plan.excerpt} tokens ({sets})" + (
        f"; left out: {left_out}" if left_out else ""
    )


def needs(job: Job) -> str:
    """What --dry-run says."""
    lacking = len(job.lacking())
    tables = sum(len(job.tabling.lacking(number)) for number in range(len(job.shards)))
    and_tables = f" and make {tables} parts of tables" if job.want.tables else ""
    return (
        f"would record {lacking} layers of shards ({len(job.layers)} layers, {len(job.shards)} shards)"
        f"{and_tables}, "
        f"at most about {job.bytes_needed() / 1e6:,.0f} MB; {job.bulk.free_bytes() / 1e6:,.0f} MB are free"
    )
