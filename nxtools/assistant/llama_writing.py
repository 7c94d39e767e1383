"""Completions by llama.cpp: prompts share what they begin with, draws share their prompt, all are written
side by side.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp

from nxtools.assistant.llama_library import PAD, Memory, Model
from nxtools.assistant.local import Effort, Text, Writing, shared_beginning
from nxtools.assistant.protocol import Completion
from nxtools.errors import ModelError
from nxtools.stage import Answered

ROWS = 16  # answers written side by side
SHARED = 0  # the sequence that holds what prompts begin with


class Sampler:
    """Chooses tokens as a completion wants them: from the model's own distribution at a temperature."""

    def __init__(self, model: Model, writing: Writing) -> None:
        wanted = writing.wanted
        self._chain: Any = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        weakref.finalize(self, llama_cpp.llama_sampler_free, self._chain)
        if grammar := _grammar(wanted):
            held = llama_cpp.llama_sampler_init_grammar(model.vocabulary, grammar.encode(), b"root")
            if not held:
                raise ModelError("llama.cpp cannot read the grammar that the answer is held to")
            llama_cpp.llama_sampler_chain_add(self._chain, held)
        if wanted.temperature > 0:
            llama_cpp.llama_sampler_chain_add(
                self._chain, llama_cpp.llama_sampler_init_temp(wanted.temperature)
            )
            llama_cpp.llama_sampler_chain_add(self._chain, llama_cpp.llama_sampler_init_dist(writing.seed))
        else:
            llama_cpp.llama_sampler_chain_add(self._chain, llama_cpp.llama_sampler_init_greedy())

    def choose(self, memory: Memory, place: int) -> int:
        """The token behind the one at a place of the last call."""
        return int(llama_cpp.llama_sampler_sample(self._chain, memory.handle, place))


def _grammar(wanted: Completion) -> str | None:
    if wanted.schema is None:
        return wanted.grammar
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    return str(json_schema_to_gbnf(json.dumps(dict(wanted.schema))))


@dataclass
class _Row:
    """An answer under way."""

    writing: Writing
    sequence: int
    sampler: Sampler
    text: Text
    position: int
    token: int = -1


class Writer:
    """Writes completions with a memory of its own, which keeps the beginning that prompts share."""

    def __init__(self, model: Model, batch: int, settings: dict[str, Any], effort: Effort) -> None:
        self._model = model
        self._batch = max(batch, ROWS)
        self._settings = settings
        self._effort = effort
        self._memory: Memory | None = None
        self._shared: tuple[int, ...] = ()

    def write(self, writing: Sequence[Writing]) -> Iterator[Answered]:
        rows, done = ROWS, 0
        while done < len(writing):
            together = writing[done : done + rows]
            prompts = list(dict.fromkeys(one.ids for one in together))
            shared = shared_beginning(prompts)
            kept = self._shared
            if shared[: len(kept)] == kept and 2 * len(kept) >= len(shared):
                shared = kept
            else:
                self._forget()
            cells = len(shared) + sum(len(prompt) - len(shared) for prompt in prompts)
            cells += sum(one.wanted.max_tokens for one in together)
            try:
                memory = self._room(cells)
            except ModelError:
                if len(together) == 1:
                    raise
                rows = len(together) // 2
                continue
            try:
                yield from self._write_together(memory, shared, prompts, together)
            except BaseException:
                self._forget()  # given up half-way
                raise
            for sequence in range(1, 1 + 2 * ROWS):
                memory.drop(sequence)
            done += len(together)

    def _forget(self) -> None:
        self._shared = ()
        if self._memory is not None:
            self._memory.clear()

    def _room(self, cells: int) -> Memory:
        if self._memory is None or self._memory.cells < cells:
            if self._memory is not None:
                self._memory.close()
                self._memory = None
            self._shared = ()
            self._memory = Memory(
                self._model,
                cells=-(-cells // PAD) * PAD,
                sequences=1 + 2 * ROWS,
                batch=self._batch,
                settings=self._settings,
            )
        return self._memory

    def _write_together(
        self,
        memory: Memory,
        shared: tuple[int, ...],
        prompts: list[tuple[int, ...]],
        together: Sequence[Writing],
    ) -> Iterator[Answered]:
        if self._shared != shared:
            self._read(memory, [(token, place, SHARED) for place, token in enumerate(shared)])
            self._shared = shared
        tokens: list[tuple[int, int, int]] = []
        for sequence, prompt in enumerate(prompts, 1):
            memory.copy(SHARED, sequence)
            tokens += [(prompt[place], place, sequence) for place in range(len(shared), len(prompt))]
        rows = [
            _Row(
                one,
                1 + ROWS + number,
                Sampler(self._model, one),
                Text(one, self._model.decode),
                len(one.ids),
            )
            for number, one in enumerate(together)
        ]
        waiting = {prompt: [row for row in rows if row.writing.ids == prompt] for prompt in prompts}
        for start in range(0, len(tokens), self._batch):
            part = tokens[start : start + self._batch]
            ends = {
                prompts[sequence - 1]: place
                for place, (_, position, sequence) in enumerate(part)
                if position == len(prompts[sequence - 1]) - 1
            }
            self._read(memory, part, list(ends.values()))
            done: Answered = []
            for prompt, place in ends.items():
                for row in waiting[prompt]:
                    memory.copy(1 + prompts.index(prompt), row.sequence)
                    done += self._choose(memory, row, place)
            if done:
                yield done
        while live := [row for row in rows if not row.text.finish]:
            self._read(
                memory, [(row.token, row.position, row.sequence) for row in live], list(range(len(live)))
            )
            done = []
            for place, row in enumerate(live):
                row.position += 1
                done += self._choose(memory, row, place)
            if done:
                yield done

    def _choose(self, memory: Memory, row: _Row, place: int) -> Answered:
        """Takes the row's next token; its answer when that was the last one."""
        row.token = row.sampler.choose(memory, place)
        self._effort.written += 1
        logits = memory.logits(place) if row.writing.wanted.logprobs else None
        done = row.text.add(row.token, ends=self._model.ends(row.token), logits=logits)
        return [(row.writing.ask, row.text.answer())] if done else []

    def _read(
        self, memory: Memory, tokens: Sequence[tuple[int, int, int]], reads: Sequence[int] = ()
    ) -> None:
        """Evaluates (token, position, sequence)s, in calls of a batch; `reads` only where one is enough."""
        for start in range(0, len(tokens), self._batch):
            part = tokens[start : start + self._batch]
            ids, positions, sequences = zip(*part, strict=True)
            memory.read(ids, positions, sequences, reads)
            self._effort.evaluated += len(part)
