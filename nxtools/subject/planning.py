"""The plan of a recording, from the store where the same text was planned before.

When the store has it, neither torch nor a tokenizer is loaded, and Python's own documentation is not even
read: the plan's question is made of digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from nxtools.errors import InputError, UsageError
from nxtools.stream import Record
from nxtools.subject.excerpts import Cut, Plan, text_digest
from nxtools.subject.identity import Resolved, positions, tokenizer_fingerprint
from nxtools.subject.making import make_plan
from nxtools.subject.text import PYTHON_DOCS, Cutting, Passage, read_passages

if TYPE_CHECKING:
    from nxtools.store import Store

BosPolicy = Literal["auto", "always", "never"]

ONCE_WITHOUT = "run it once without --offline"

PLAN_VERSION = 2
PYTHON_DOCS_VERSION = 1  # raise it when pydoc.documents makes other documents of the same library


@dataclass(frozen=True)
class Planned:
    """A plan with the digests under which it lies beside the recordings, as does the vocabulary."""

    plan: Plan
    blob: str
    vocabulary: str
    bos: int | None

    def names(self, bulk: Store) -> list[str]:
        """The text of each token id."""
        texts: list[str] = orjson.loads(bulk.blob(self.vocabulary))
        return texts


class Texts:
    """The text of a recording: sources that can be read again from their beginning.

    stdin, which has only one beginning, is held in memory. A line that holds no text is handed to
    `on_bad_line` once and skipped, or raises where there is none. Raises as `read_passages` does.
    """

    def __init__(
        self,
        sources: Sequence[str],
        cutting: Cutting | None = None,
        *,
        on_bad_line: Callable[[InputError], None] | None = None,
    ) -> None:
        if list(sources).count("-") > 1:
            raise UsageError("stdin is named twice")
        self.sources = list(sources)
        self._cutting = cutting or Cutting()
        self._on_bad_line = on_bad_line
        self._stdin: list[Passage] | None = None

    def _readers(self) -> list[Iterator[Passage]]:
        """One for each source; what is not there is noticed now."""
        readers = []
        for source in self.sources:
            if source == "-" and self._stdin is not None:
                readers.append(iter(self._stdin))
            else:
                readers.append(read_passages([source], self._cutting, on_bad_line=self._on_bad_line))
        return readers

    def passages(self) -> Iterator[Passage]:
        for reader in self._readers():
            yield from reader

    def digests(self, store: Store) -> list[str]:
        """The digest of each source's text."""
        digests = []
        for source, reader in zip(self.sources, self._readers(), strict=True):
            if source == "-":
                self._stdin = list(reader)
                reader = iter(self._stdin)
            is_python_docs = source.partition(":")[0] == PYTHON_DOCS
            digests.append(
                _python_docs_digest(source, reader, store) if is_python_docs else text_digest(reader)
            )
        if self._on_bad_line is not None:
            self._on_bad_line = _ignore  # it has heard of all of them
        return digests


def _ignore(error: InputError) -> None:
    pass


def _python_docs_digest(source: str, reader: Iterator[Passage], store: Store) -> str:
    """Parsing a standard library takes seconds, so its text's digest is remembered while no file changes."""
    from nxtools.subject.pydoc import library_state

    name = f"{source} {PYTHON_DOCS_VERSION} {library_state()}"
    known = store.recall(name)
    if known is None:
        known = text_digest(reader)
        store.remember(name, known)
    return known


def plan_recording(
    store: Store,
    bulk: Store,
    resolved: Resolved,
    texts: Texts,
    cut: Cut,
    bos: BosPolicy,
    *,
    trust_remote_code: bool = False,
) -> Planned:
    """The plan of a recording. `bulk` keeps the blobs that recording lines name, `store` remembers.

    Raises UsageError where the subject cannot see a whole context, and InputError where the store is offline
    and has no such plan.
    """
    _check_positions(resolved, cut, None)  # before the text is read
    planned = _planned(store, bulk, resolved, texts, cut, bos, trust_remote_code=trust_remote_code)
    _check_positions(resolved, cut, planned.bos)
    return planned


def _check_positions(resolved: Resolved, cut: Cut, bos: int | None) -> None:
    most = positions(resolved.path)
    front = 0 if bos is None else 1
    if most is not None and cut.context + front > most:
        with_bos = " and a BOS token" if front else ""
        raise UsageError(
            f"a context of {cut.context} tokens{with_bos} is longer than the {most} that the subject can see",
            hint=f"--context {most - front} at most, and a multiple of --excerpt",
        )


def _planned(
    store: Store,
    bulk: Store,
    resolved: Resolved,
    texts: Texts,
    cut: Cut,
    bos: BosPolicy,
    *,
    trust_remote_code: bool,
) -> Planned:
    from nxtools.store import MissingBlob, question_digest

    fields: Record = {
        "text": texts.digests(store),
        "tokenizer": tokenizer_fingerprint(resolved.path),
        "cut": cut.question(),
        "bos": bos,
    }
    question = question_digest("plan", PLAN_VERSION, fields)
    stored = store.get(question)
    if stored is not None:
        answer = orjson.loads(stored)
        try:
            if bulk.has(answer["vocabulary"]):
                plan = Plan.from_bytes(bulk.open_blob(answer["plan"]))
                return Planned(plan, answer["plan"], answer["vocabulary"], answer["bos"])
        except MissingBlob:
            pass  # made again below
    if store.mode == "offline":
        raise InputError("this text was not planned before, and --offline was given", hint=ONCE_WITHOUT)
    planned = _plan_anew(bulk, resolved, texts, cut, bos, trust_remote_code=trust_remote_code)
    answer = {"plan": planned.blob, "vocabulary": planned.vocabulary, "bos": planned.bos}
    store.put(question, orjson.dumps(answer), kind="plan")
    return planned


def _plan_anew(
    bulk: Store, resolved: Resolved, texts: Texts, cut: Cut, bos: BosPolicy, *, trust_remote_code: bool
) -> Planned:
    from nxtools.subject.load import bos_id, load_tokenizer
    from nxtools.subject.vocabulary import token_texts

    tokenizer = load_tokenizer(resolved.path, trust_remote_code=trust_remote_code)
    front = bos_id(tokenizer, bos)

    def tokenize(texts: Any) -> list[list[int]]:
        return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[no-any-return]

    plan = make_plan(texts.passages(), tokenize, cut, masked_first=front is None and not cut.keep_first)
    blob = bulk.put_blob(plan.to_bytes(), kind="plan", compress=False, required=True)
    names = orjson.dumps([_well_formed(text) for text in token_texts(tokenizer)])
    vocabulary = bulk.put_blob(names, kind="plan", required=True)
    return Planned(plan, blob, vocabulary, front)


def _well_formed(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
