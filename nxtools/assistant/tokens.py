"""Text to token ids piece by piece, the same wherever a piece stands.

A prompt that is tokenised whole has to be searched for its parts afterwards, and a tab may have merged with
the token before it. So each piece is tokenised on its own, and positions are known by counting.

Sentencepiece vocabularies put a space in front of what is tokenised alone ("\\t" becomes "▁" and "<0x09>").
There a piece is tokenised behind a sentinel whose ids are cut off; that they stand unchanged in front is
checked for every piece, so what is left spells exactly the piece.

The numbers are written without a space in front, as they stand behind a tab. Where "10" is two tokens
(tokenizers that split digits), its probability cannot be read at one position, and "1" would take it for its
own. There 10 is written as 9 in prompts, and 9 is the highest number that is read: of values floored to 0…10
only the maximum itself is 10, so hardly anything is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxtools.errors import ModelError

Encode = Callable[[str], Sequence[int]]  # special tokens are neither added nor read out of the text

# No letter or digit joins a piece with these; which of them can stand in front is found out piece by piece.
SENTINELS = ("=", "\n", "\x01")

REMEMBERED = 1 << 17


class Tokens:
    """A tokenizer, piece by piece. `begin`: ids that it puts in front of any text."""

    def __init__(self, encode: Encode, begin: Sequence[int] = ()) -> None:
        self._encode = encode
        self.begin = tuple(begin)
        self._known: dict[str, tuple[int, ...]] = {}
        behind = [ids for sentinel in SENTINELS if (ids := self._behind(sentinel, "a")) is not None]
        self._alone = bool(behind) and all(ids == tuple(encode("a")) for ids in behind)
        numbers = [self.piece(str(number)) for number in range(11)]
        self._single = [len(ids) == 1 for ids in numbers]
        self.numbers = tuple(ids[0] for ids in numbers[: 11 if self._single[10] else 10])

    @property
    def top(self) -> int:
        """The highest number that is one token: 10, or 9 on tokenizers that split digits."""
        return len(self.numbers) - 1

    @property
    def has_numbers(self) -> bool:
        """Whether each of 0 to 9 is a token of its own."""
        return all(self._single[:10]) and len(set(self.numbers)) == len(self.numbers)

    def number(self, value: int) -> tuple[int, ...]:
        """The ids of a number as prompts show it."""
        return self.piece(str(min(value, self.top)))

    def piece(self, text: str) -> tuple[int, ...]:
        """The ids of a text in running text. ModelError where no sentinel stays apart from it."""
        ids = self._known.get(text)
        if ids is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            ids = self._known[text] = self._tokenised(text)
        return ids

    def _tokenised(self, text: str) -> tuple[int, ...]:
        if self._alone or not text:
            return tuple(self._encode(text)) if text else ()
        for sentinel in SENTINELS:
            ids = self._behind(sentinel, text)
            if ids is not None:
                return ids
        raise ModelError(f"the assistant's tokenizer cannot take {text!r} as a piece of its own")

    def _behind(self, sentinel: str, text: str) -> tuple[int, ...] | None:
        """The ids of the text behind a sentinel, None where the two merge."""
        front = tuple(self._encode(sentinel))
        whole = tuple(self._encode(sentinel + text))
        return whole[len(front) :] if whole[: len(front)] == front else None
