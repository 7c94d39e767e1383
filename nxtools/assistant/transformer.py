"""`hf:`: a causal language model of transformers, run in this process.

The prefix goes through the model once, and its keys and values are kept. An explanation goes on from a copy
of them, and its excerpts, as rows of one batch, go on from copies of that. Rows are padded behind their end,
where no token sees it, so neither masks nor positions need to be said. Logits are made only where a number
is predicted.

Answers are written side by side as well. Their prompts are padded in front, behind what they share, and
masks and positions say where a prompt begins. Models that keep a window or a recurrence, which would count
the padding, write prompts of one length side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Sized
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nxtools.assistant import slots, vectors
from nxtools.assistant.chat import Chat
from nxtools.assistant.local import (
    Embedded,
    LocalAssistant,
    Reading,
    Text,
    Tokenizer,
    Writing,
    shared_beginning,
)
from nxtools.assistant.options import Option, switch, whole
from nxtools.assistant.tokens import Tokens
from nxtools.errors import ModelError
from nxtools.stage import Answered

if TYPE_CHECKING:
    from nxtools.assistant.transformer_library import Model, State
    from nxtools.store import Store

# Tokens in one call, padding included. What a processor works on should stay near it; a GPU wants more to do.
BATCH, GPU_BATCH = 1024, 8192
SMALLEST_BATCH = 64
ROWS = 16  # answers written side by side

Ids = tuple[int, ...]


class TransformersAssistant(LocalAssistant):
    """A model in a folder, as transformers saves it. Raises ModelError where it cannot be loaded."""

    engine = "hf"
    abilities = frozenset({"logprobs"})
    known_options: ClassVar[Mapping[str, Option]] = {
        "n_ctx": Option(whole, "tokens that a prompt and its answer may have together"),
        "n_batch": Option(whole, "tokens in one call"),
        "n_threads": Option(whole, "threads"),
        "device": Option(str, "auto, cpu, cuda or mps"),
        "dtype": Option(str, "float32, bfloat16 or float16"),  # in the identity whether given or not
        "trust_remote_code": Option(switch, "run the code that comes with the model", changes_answers=True),
    }

    def __init__(self, path: Path, name: str, digest: str, store: Store, options: Mapping[str, str]) -> None:
        super().__init__(name, digest, store, options)
        self._path = path
        self._kept: dict[Ids, State] = {}  # what the model knows after the prefix and the last explanation
        self._begun: dict[Ids, State] = {}  # … after the beginning of completions

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"dtype": self._dtype}

    @cached_property
    def _dtype(self) -> str:
        from nxtools.subject.load import pick_device, pick_dtype

        device = pick_device(self.options.get("device", "auto"))
        return pick_dtype(self.options.get("dtype"), device, self._path)

    @cached_property
    def _most(self) -> int:
        on_processor = self._model.device.type == "cpu"
        return int(self.options.get("n_batch", BATCH if on_processor else GPU_BATCH))

    @cached_property
    def _batch(self) -> int:
        """Tokens in one call: fewer than at first, once there was no room for them."""
        return self._most

    @cached_property
    def _hf_tokenizer(self) -> Any:
        from nxtools.subject.load import load_tokenizer

        return load_tokenizer(self._path, trust_remote_code=self.options.get("trust_remote_code", False))

    def _load_tokenizer(self) -> Tokenizer:
        from nxtools.subject.load import bos_id

        tokenizer = self._hf_tokenizer

        def encode(text: str, markers: bool = False) -> list[int]:
            ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not markers)
            return [int(one) for one in ids]

        begin = bos_id(tokenizer)
        begins = () if begin is None else (begin,)
        special = {name: getattr(tokenizer, name) or "" for name in ("bos_token", "eos_token")}
        template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        chat = Chat(template, encode, begins, special)
        return Tokenizer(Tokens(encode, begins), chat, _trained_context(self._path))

    def _decode(self, tokens: Sequence[int]) -> str:
        """Tokens as they stand behind others: decoders treat the first token of a text in their own way."""
        before = self._decoded([self._anchor])
        return self._decoded([self._anchor, *tokens])[len(before) :]

    @cached_property
    def _anchor(self) -> int:
        return int(self._hf_tokenizer.encode("a", add_special_tokens=False)[-1])

    def _decoded(self, tokens: Sequence[int]) -> str:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(self._hf_tokenizer.decode(tokens, **options))

    @cached_property
    def _model(self) -> Model:
        from nxtools.assistant.transformer_library import Model

        self.effort.loads += 1
        return Model(
            self._path,
            device=self.options.get("device", "auto"),
            dtype=self._dtype,
            threads=self.options.get("n_threads"),
            trust_remote_code=self.options.get("trust_remote_code", False),
        )

    # Slots

    def _read(self, reading: list[Reading]) -> Iterator[Answered]:
        if unread := [one for one in reading if not one.prompt.reads]:
            yield [(one.ask, one.nothing(self.tokenizer.tokens.top)) for one in unread]
        groups: dict[tuple[Ids, Ids], list[Reading]] = {}
        for one in reading:
            if one.prompt.reads:
                groups.setdefault((one.prompt.prefix, one.prompt.explanation), []).append(one)
        for (prefix, explanation), members in groups.items():
            left = sorted(members, key=lambda one: -len(one.prompt.excerpt))
            while left:
                # Rows of like length, so many that their padded tokens fit a call.
                rows = left[: max(1, self._batch // len(left[0].prompt.excerpt))]
                try:
                    answered = self._read_rows(self._after(prefix, explanation), rows)
                except MemoryError as error:
                    self._take_less(error)
                    continue
                left = left[len(rows) :]
                yield answered

    def _take_less(self, error: MemoryError) -> None:
        """Halves what goes into a call."""
        if self._batch <= SMALLEST_BATCH:
            hint = "--with-option dtype=bfloat16 halves the model, --with-option device=cpu has more"
            raise ModelError("does not fit on the device", where=self.name, hint=hint) from error
        self._batch //= 2

    def _read_rows(self, state: State, rows: list[Reading]) -> Answered:
        tokens = self.tokenizer.tokens
        excerpts = [one.prompt.excerpt for one in rows]
        reads = [(row, place) for row, one in enumerate(rows) for place in one.prompt.reads]
        logits = self._model.read_rows(state, excerpts, reads)
        self.effort.evaluated += sum(map(len, excerpts))
        probabilities, mass = slots.read_numbers(logits, tokens.numbers)
        ends = np.cumsum([len(one.prompt.reads) for one in rows])[:-1]
        by_row = zip(*(np.split(each, ends) for each in (probabilities, mass, logits)), strict=True)
        return [
            (
                one.ask,
                slots.answer(among, of_all, tokens.top)
                if one.targets is None
                else slots.passage(slots.of_targets(read, one.targets)),
            )
            for one, (among, of_all, read) in zip(rows, by_row, strict=True)
        ]

    def _after(self, prefix: Ids, explanation: Ids) -> State:
        """What the model knows after a prefix and an explanation; each is read once while it is in use."""
        if prefix not in self._kept:
            self._kept = {prefix: self._go_on(self._model.empty(), prefix)}
        whole = prefix + explanation
        if whole not in self._kept:
            before = self._kept[prefix]
            self._kept = {prefix: before, whole: self._go_on(before, explanation)}
        return self._kept[whole]

    def _go_on(self, state: State, ids: Ids) -> State:
        for start in range(0, len(ids), self._batch):
            state = self._model.read(state, ids[start : start + self._batch])
        self.effort.evaluated += len(ids)
        return state

    def _embed(self, embedding: list[Embedded]) -> Iterator[Answered]:
        left = sorted(embedding, key=lambda one: -len(one[1]))
        while left:
            together = left[: max(1, self._batch // len(left[0][1]))]
            try:
                means = self._model.embed([ids for _, ids in together])
            except MemoryError as error:
                self._take_less(error)
                continue
            left = left[len(together) :]
            self.effort.evaluated += sum(len(ids) for _, ids in together)
            yield [(ask, vectors.packed(mean)) for (ask, _), mean in zip(together, means, strict=True)]

    # Completions

    def _write(self, writing: list[Writing]) -> Iterator[Answered]:
        """What prompts begin with is read once, each prompt once for all its draws; several are written side
        by side."""
        left = list(writing)
        while left:
            try:
                for answered in self._write_group(left):
                    done = {id(ask) for ask, _ in answered}
                    left = [one for one in left if id(one.ask) not in done]
                    yield answered
            except MemoryError as error:
                self._take_less(error)

    def _write_group(self, left: list[Writing]) -> Iterator[Answered]:
        """Writes prompts that go side by side."""
        by_prompt: dict[Ids, list[Writing]] = {}
        for one in left:
            by_prompt.setdefault(one.ids, []).append(one)
        shared = shared_beginning(list(by_prompt))
        kept = next(iter(self._begun), ())
        if shared[: len(kept)] == kept and 2 * len(kept) >= len(shared):
            shared = kept
        if shared not in self._begun:
            self._begun = {shared: self._go_on(self._model.empty(), shared)}
        state = self._begun[shared]
        group = self._side_by_side(by_prompt, len(shared), padded=self._model.can_pad(state))
        yield from self._write_rows(state, {ids[len(shared) :]: by_prompt[ids] for ids in group})

    def _side_by_side(self, draws: Mapping[Ids, Sized], shared: int, *, padded: bool) -> list[Ids]:
        """The longest prompts, padded to the first one's length, that together fit a call and have no more
        draws than go side by side; without padding, of one length."""
        group: list[Ids] = []
        most = max(1, ROWS * self._batch // self._most)
        for ids in sorted(draws, key=len, reverse=True):
            if group and (
                sum(len(draws[one]) for one in (*group, ids)) > most
                or (len(group) + 1) * (len(group[0]) - shared) > self._batch
                or (len(ids) < len(group[0]) and not padded)
            ):
                break
            group.append(ids)
        return group

    def _write_rows(self, state: State, writing: Mapping[Ids, list[Writing]]) -> Iterator[Answered]:
        """writing: the draws of each prompt, which goes on from a state."""
        self.effort.evaluated += sum(map(len, writing))
        logits, state = self._model.begin(state, list(writing), self._batch)
        rows = [
            (Text(one, self._decode), np.random.default_rng(one.seed), one)
            for draws in writing.values()
            for one in draws
        ]
        if len(rows) > len(writing):
            prompts = [row for row, draws in enumerate(writing.values()) for _ in draws]
            logits = logits[prompts]
            state = state.rows(len(rows)) if len(writing) == 1 else state.chosen(prompts)
        while True:
            tokens = []
            done: Answered = []
            going = []
            for row, (text, random, one) in enumerate(rows):
                token = choose(logits[row], one.wanted.temperature, random)
                self.effort.written += 1
                said = logits[row] if one.wanted.logprobs else None
                if text.add(token, ends=token in self._model.ends, logits=said):
                    done.append((one.ask, text.answer()))
                else:
                    tokens.append(token)
                    going.append(row)
            if done:
                yield done
            if not going:
                return
            if len(going) < len(rows):
                rows = [rows[row] for row in going]
                state = state.chosen(going)
            logits, state = self._model.next_tokens(state, tokens)
            self.effort.evaluated += len(tokens)


def choose(logits: slots.Floats, temperature: float, random: np.random.Generator) -> int:
    """The next token: from the model's own distribution at a temperature, the likeliest one at 0."""
    if temperature <= 0:
        return int(logits.argmax())
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature).cumsum()
    return int(np.searchsorted(weights, random.random() * weights[-1], side="right"))


def _trained_context(path: Path) -> int | None:
    """How many tokens the model was made for, if its config says so."""
    config = json.loads((path / "config.json").read_bytes())
    config = config.get("text_config") or config
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    return next((int(config[name]) for name in names if config.get(name)), None)
