"""The text of every token, as it stands in running text."""

from __future__ import annotations

from typing import Any


def token_texts(tokenizer: Any) -> list[str]:
    """Text by token id: `" the"` with its space, U+FFFD where a token is a part of a character.

    A token's text is what decoding it behind another token adds, since decoders treat the first token of a
    text in their own way (sentencepiece drops its space). Gaps in the ids have empty text.
    """
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"][-1]
    before = tokenizer.decode([anchor], **options)
    texts = tokenizer.batch_decode([[anchor, token] for token in range(size)], **options)
    return [text[len(before) :] if text.startswith(before) else text for text in texts]
