"""Which tokens a model with a shared memory reads in which call, so that none is read twice.

Prompts are made of a prefix, an explanation and an excerpt. The memory (llama.cpp's unified KV cache) holds
sequences that may share cells: the prefix is sequence 0; each explanation is a copy of it that goes on; each
excerpt is a copy of its explanation that goes on. A copy costs nothing, and whole sequences are dropped when
they are done, never parts of one, which recurrent models could not do.

Calls are filled: explanations are read one call before their excerpts, along with the excerpts of others, and
an excerpt that does not fit what is left of a call that is half full waits for the next one. So no more
excerpts are under way than a call has room for, and the memory, with it the cost of attention, stays small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from nxtools.assistant.slots import Prompt


@dataclass
class Step:
    """One call of the model: what to drop and to copy before it, and the tokens it reads.

    prefix: the whole of it, where the call reads a part of a prefix and nothing else. reads: places in `ids`
    whose logits are wanted, and the prompts they belong to; both in order. cells: how many tokens the memory
    holds in the end.
    """

    drops: list[int]
    prefix: tuple[int, ...] = ()
    copies: list[tuple[int, int]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    cells: int = 0


@dataclass
class _Part:
    """An explanation or an excerpt on its way into the memory."""

    ids: tuple[int, ...]
    start: int
    source: int
    prompt: int | None = None  # whose excerpt it is
    reads: frozenset[int] = frozenset()
    sequence: int | None = None
    done: int = 0
    excerpts: list[_Part] = field(default_factory=list)  # what follows an explanation
    parent: _Part | None = None
    open_excerpts: int = 0

    @property
    def left(self) -> int:
        return len(self.ids) - self.done


class Planner:
    """Plans calls of at most `batch` tokens over `sequences` sequences, and knows what the memory holds."""

    def __init__(self, batch: int, sequences: int) -> None:
        if batch < 1 or sequences < 3:
            raise ValueError("a plan needs room for a token, and a prefix, an explanation and an excerpt")
        self.batch = batch
        self.sequences = sequences
        self.forget()

    def forget(self) -> None:
        """The memory is empty."""
        self._prefix: tuple[int, ...] | None = None
        self._kept: _Part | None = None  # the explanation that was used last
        self._free = list(range(self.sequences - 1, 0, -1))
        self._dead: list[int] = []
        self._cells: dict[int, int] = {}

    def plan(self, prompts: Sequence[Prompt]) -> list[Step]:
        """The calls that read the prompts; the memory is as they will leave it."""
        by_prefix: dict[tuple[int, ...], list[int]] = {}
        for number, prompt in enumerate(prompts):
            if prompt.excerpt:
                by_prefix.setdefault(prompt.prefix, []).append(number)
        steps: list[Step] = []
        for prefix, members in by_prefix.items():
            if prefix != self._prefix:
                steps += self._read_prefix(prefix)
            steps += self._read_all(self._explanations(prompts, members))
        return steps

    def _read_prefix(self, prefix: tuple[int, ...]) -> list[Step]:
        live = sorted(self._cells)
        self.forget()
        self._prefix = prefix
        steps: list[Step] = []
        for start in range(0, len(prefix), self.batch):
            step = Step(drops=[] if steps else live, prefix=prefix)
            self._put(step, _Part(prefix, 0, 0, sequence=0, done=start), self.batch)
            steps.append(step)
        return steps or [Step(drops=live)]

    def _explanations(self, prompts: Sequence[Prompt], members: list[int]) -> deque[_Part]:
        """The explanations with their excerpts, in the order in which they came."""
        found: dict[tuple[int, ...], _Part] = {}
        for number in members:
            prompt = prompts[number]
            explanation = found.get(prompt.explanation)
            if explanation is None:
                explanation = _Part(prompt.explanation, len(prompt.prefix), 0)
                if not prompt.explanation:
                    explanation.sequence = 0
                elif self._kept is not None and self._kept.ids == prompt.explanation:
                    explanation.sequence, explanation.done = self._kept.sequence, self._kept.done
                found[prompt.explanation] = explanation
            start = len(prompt.prefix) + len(prompt.explanation)
            reads = frozenset(prompt.reads)
            excerpt = _Part(prompt.excerpt, start, 0, number, reads, parent=explanation)
            explanation.excerpts.append(excerpt)
            explanation.open_excerpts += 1
        if self._kept is not None and self._kept.ids not in found:
            self._end(self._kept)
        self._kept = None
        return deque(found.values())

    def _read_all(self, explanations: deque[_Part]) -> list[Step]:
        steps: list[Step] = []
        ready: deque[_Part] = deque()
        for explanation in [one for one in explanations if not one.left]:
            explanations.remove(explanation)
            ready += self._excerpts_of(explanation)
        while explanations or ready:
            step = Step(drops=self._buried())
            ahead = sum(part.left for part in ready)
            coming: list[_Part] = []
            while explanations and ahead < 2 * self.batch and self._room(step):
                explanation = explanations[0]
                if explanation.sequence is None and not self._open(step, explanation, spare=1):
                    break
                self._put(step, explanation, self._room(step))
                if explanation.left:
                    break
                explanations.popleft()
                coming += self._excerpts_of(explanation)
                ahead += sum(part.left for part in explanation.excerpts)
            while ready and self._room(step):
                excerpt = ready[0]
                if excerpt.left > self._room(step) and not excerpt.done and 2 * len(step.ids) > self.batch:
                    break
                if excerpt.sequence is None and not self._open(step, excerpt, spare=0):
                    break
                self._put(step, excerpt, self._room(step))
                if not excerpt.left:
                    self._finish(step, ready.popleft(), last=not (ready or coming or explanations))
            ready += coming
            steps.append(step)
        return steps

    def _excerpts_of(self, explanation: _Part) -> list[_Part]:
        assert explanation.sequence is not None
        for excerpt in explanation.excerpts:
            excerpt.source = explanation.sequence
        return explanation.excerpts

    def _finish(self, step: Step, excerpt: _Part, *, last: bool) -> None:
        """The excerpt's last token is in the step; the explanation behind the very last one is kept."""
        assert excerpt.prompt is not None and excerpt.parent is not None
        step.finished.append(excerpt.prompt)
        self._end(excerpt)
        explanation = excerpt.parent
        explanation.open_excerpts -= 1
        if explanation.open_excerpts or not explanation.sequence:
            return
        if last:
            self._kept = explanation
        else:
            self._end(explanation)

    def _open(self, step: Step, part: _Part, *, spare: int) -> bool:
        """Gives a part a sequence of its own, which begins as a copy; False when there is none."""
        if len(self._free) <= spare:
            return False
        part.sequence = self._free.pop()
        step.copies.append((part.source, part.sequence))
        return True

    def _put(self, step: Step, part: _Part, room: int) -> None:
        assert part.sequence is not None
        for place in range(part.done, min(part.done + room, len(part.ids))):
            if place in part.reads:
                assert part.prompt is not None
                step.reads.append((len(step.ids), part.prompt))
            step.ids.append(part.ids[place])
            step.positions.append(part.start + place)
            step.sequences.append(part.sequence)
            part.done = place + 1
        self._cells[part.sequence] = part.done
        step.cells = sum(self._cells.values())

    def _room(self, step: Step) -> int:
        return self.batch - len(step.ids)

    def _end(self, part: _Part) -> None:
        assert part.sequence is not None
        self._dead.append(part.sequence)

    def _buried(self) -> list[int]:
        """The sequences that nobody needs any more; they can be used again."""
        dead, self._dead = self._dead, []
        for sequence in dead:
            self._cells.pop(sequence, None)
            self._free.append(sequence)
        return dead
