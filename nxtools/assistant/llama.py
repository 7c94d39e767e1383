"""`llama:`: a GGUF file, run by llama.cpp in this process.

Answers to `Slots` are read from as few tokens as there are: see `nxtools.assistant.sharing`. Completions that
are asked for together are written side by side: see `nxtools.assistant.llama_writing`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nxtools.assistant import slots, vectors
from nxtools.assistant.chat import Chat
from nxtools.assistant.local import Embedded, LocalAssistant, Reading, Tokenizer, Writing
from nxtools.assistant.options import Option, whole
from nxtools.assistant.sharing import Planner, Step
from nxtools.assistant.slots import Prompt
from nxtools.assistant.tokens import Tokens
from nxtools.errors import ModelError
from nxtools.stage import Answered

if TYPE_CHECKING:
    from nxtools.assistant.llama_library import Memory, Model
    from nxtools.assistant.llama_prefix import PrefixStates
    from nxtools.assistant.llama_writing import Writer
    from nxtools.store import Store

SEQUENCES = 64
SMALLEST_BATCH = 64

# Tokens in one call. A processor is as fast with an excerpt or two at a time, and their attention sees fewer
# tokens of others; a GPU wants more to do.
BATCH, GPU_BATCH = 320, 1024
SPARE = 256  # cells for longer explanations to come, so that the memory is not made anew for them


class LlamaAssistant(LocalAssistant):
    """A model of llama.cpp. Raises ModelError where the file or the memory for it cannot be had."""

    engine = "llama"
    abilities = frozenset({"logprobs", "grammar", "schema"})
    known_options: ClassVar[Mapping[str, Option]] = {
        "n_ctx": Option(whole, "tokens that a prompt and its answer may have together"),
        "n_batch": Option(whole, "tokens in one call"),
        "n_threads": Option(whole, "threads"),
        "n_gpu_layers": Option(int, "layers on the GPU, -1 for all of them"),
        "rope_freq_base": Option(float, "base of the rotary positions", changes_answers=True),
        "rope_freq_scale": Option(float, "scale of the rotary positions", changes_answers=True),
    }

    def __init__(self, path: Path, digest: str, store: Store, options: Mapping[str, str]) -> None:
        super().__init__(path.name, digest, store, options)
        self._path = path
        self._memory: Memory | None = None

    @cached_property
    def _vocabulary(self) -> Model:
        from nxtools.assistant.llama_library import Model

        return Model(self._path, vocabulary_only=True)

    def _load_tokenizer(self) -> Tokenizer:
        model = self._vocabulary
        begin = model.begin()
        return Tokenizer(
            Tokens(model.encode, begin),
            Chat(model.chat_template(), model.encode, begin, model.special()),
            model.trained_context() or None,
        )

    @cached_property
    def _model(self) -> Model:
        from nxtools.assistant.llama_library import Model

        self.effort.loads += 1
        return Model(self._path, gpu_layers=self.options.get("n_gpu_layers", -1))

    @cached_property
    def _batch(self) -> int:
        from nxtools.assistant.llama_library import has_gpu

        return int(self.options.get("n_batch", GPU_BATCH if has_gpu() else BATCH))

    @cached_property
    def _planner(self) -> Planner:
        return Planner(self._batch, SEQUENCES)

    @property
    def _settings(self) -> dict[str, Any]:
        """What is said to llama.cpp when a memory is made."""
        from nxtools.assistant.llama_library import has_gpu

        settings = {name: value for name, value in self.options.items() if name.startswith("rope_")}
        if not has_gpu():
            settings["flash_attn_type"] = 0  # slower on processors where excerpts share what is before them
        if threads := self.options.get("n_threads"):
            settings |= {"n_threads": threads, "n_threads_batch": threads}
        return settings

    def _read(self, reading: list[Reading]) -> Iterator[Answered]:
        """Each answer is there as soon as the call that holds its last token is over."""
        tokens = self.tokenizer.tokens
        found: list[list[tuple[Any, Any]]] = [[] for _ in reading]
        if unread := [one for one in reading if not one.prompt.reads]:
            yield [(one.ask, one.nothing(tokens.top)) for one in unread]
        memory, steps = self._planned([one.prompt for one in reading])
        try:
            while steps:
                if steps[0].prefix:
                    steps = self._behind_prefix(memory, steps)
                    continue
                step = steps.pop(0)
                logits = memory.run(step)
                self.effort.evaluated += len(step.ids)
                probabilities, mass = slots.read_numbers(logits, tokens.numbers)
                for row, (_, prompt) in enumerate(step.reads):
                    targets = reading[prompt].targets
                    if targets is None:
                        found[prompt].append((probabilities[row], mass[row]))
                    else:
                        target = targets[len(found[prompt])]
                        found[prompt].append((slots.of_targets(logits[row : row + 1], [target])[0], None))
                if step.finished:
                    yield [
                        (
                            reading[one].ask,
                            slots.passage(p for p, _ in found[one])
                            if reading[one].targets is not None
                            else slots.answer(
                                np.array([p for p, _ in found[one]]),
                                np.array([m for _, m in found[one]]),
                                tokens.top,
                            ),
                        )
                        for one in step.finished
                    ]
        finally:
            if steps:  # given up half-way: the memory is not what was planned
                self._planner.forget()
                memory.clear()

    def _behind_prefix(self, memory: Memory, steps: list[Step]) -> list[Step]:
        """Reads a prefix, or takes what is known after it from the store; the calls that are left."""
        prefix = steps[0].prefix
        own = [step for step in steps if step.prefix == prefix]
        for sequence in own[0].drops:
            memory.drop(sequence)
        own[0].drops = []
        if not self._states.restore(memory, prefix):
            begun = time.perf_counter()
            for step in own:
                memory.run(step)
                self.effort.evaluated += len(step.ids)
            self._states.keep(memory, prefix, time.perf_counter() - begun)
        return steps[len(own) :]

    @cached_property
    def _states(self) -> PrefixStates:
        from nxtools.assistant.llama_prefix import PrefixStates

        made_alike = {name: value for name, value in self._settings.items() if "threads" not in name}
        return PrefixStates(self._store, self.identity(), made_alike)

    def _planned(self, prompts: Sequence[Prompt]) -> tuple[Memory, list[Step]]:
        """The calls, and a memory that has room for them; with smaller calls where there is not enough."""
        from nxtools.assistant.llama_library import PAD, Memory

        while True:
            steps = self._planner.plan(prompts)
            cells = max((step.cells for step in steps), default=0)
            if self._memory is not None and self._memory.cells >= cells:
                return self._memory, steps
            if self._memory is not None:
                self._memory.close()
                self._memory = None
            batch = self._planner.batch
            self._planner = Planner(batch, SEQUENCES)
            try:
                self._memory = Memory(
                    self._model,
                    cells=-(-(cells + SPARE) // PAD) * PAD,
                    sequences=SEQUENCES,
                    batch=batch,
                    settings=self._settings,
                )
            except ModelError:
                if batch <= SMALLEST_BATCH:
                    raise
                self._planner = Planner(batch // 2, SEQUENCES)

    def _embed(self, embedding: list[Embedded]) -> Iterator[Answered]:
        from nxtools.assistant.llama_library import PAD, Memory, pooled

        longest = max(len(ids) for _, ids in embedding)
        cells = -(-longest // PAD) * PAD
        memory = Memory(
            self._model, cells=cells, sequences=1, batch=cells, settings=self._settings | pooled()
        )
        try:
            for ask, ids in embedding:
                yield [(ask, vectors.packed(memory.embed(ids)))]
                self.effort.evaluated += len(ids)
        finally:
            memory.close()

    @cached_property
    def _writer(self) -> Writer:
        from nxtools.assistant.llama_writing import Writer

        return Writer(self._model, self._batch, self._settings, self.effort)

    def _write(self, writing: list[Writing]) -> Iterator[Answered]:
        yield from self._writer.write(writing)
