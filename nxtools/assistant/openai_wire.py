"""What goes over the wire to an OpenAI-compatible server, and how its answers are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nxtools.assistant.chat import without_system
from nxtools.assistant.protocol import NUMBERS, Completion, Message, Number, Passage, Piece, Slot, Slots
from nxtools.assistant.slots import passage
from nxtools.assistant.vectors import packed

ALTERNATIVES = 20  # log-probabilities per position; OpenAI and vLLM give no more

Body = dict[str, Any]


class Malformed(Exception):
    """An answer that did not come whole, or is not what was asked for."""


class Unlisted(Exception):
    """An answer without a log-probability that is needed."""


def request(model: str, payload: Completion, *, chat: bool, draws: int = 1) -> tuple[str, Body]:
    """Path and body. Without a chat endpoint the messages are one text, paragraphs behind each other.

    draws: choices that are wanted. Several come without a seed, which might make them all the same.
    """
    body: Body = {"model": model, "temperature": payload.temperature, "max_tokens": payload.max_tokens}
    if payload.stop:
        body["stop"] = list(payload.stop)
    if draws > 1:
        body["n"] = draws
    elif payload.temperature > 0:
        body["seed"] = payload.draw  # where the server heeds it, draws differ and can be had again
    if payload.grammar is not None:
        body["grammar"] = payload.grammar
    if payload.schema is not None:
        form = {"name": "answer", "schema": payload.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if not chat:
        body["prompt"] = "\n\n".join(message.content for message in payload.messages)
        if payload.logprobs:
            body["logprobs"] = payload.logprobs
        return "/completions", body
    body["messages"] = _spoken(payload.messages)
    if payload.logprobs:
        body |= {"logprobs": True, "top_logprobs": payload.logprobs}
    return "/chat/completions", body


def _spoken(messages: Sequence[Message]) -> list[Body]:
    return [{"role": message.role, "content": message.content} for message in messages]


def with_system_in_user(body: Mapping[str, Any]) -> Body:
    """The body for models that know no system message."""
    if "messages" not in body:
        return dict(body)
    return {**body, "messages": _spoken(without_system([Message(**one) for one in body["messages"]]))}


def chosen(body: Mapping[str, Any], renamed: Mapping[str, str | None]) -> Body:
    """The body with fields renamed; those renamed to None are left out."""
    names = {field: renamed.get(field, field) for field in body}
    return {name: body[field] for field, name in names.items() if name is not None}


def read_completions(data: Mapping[str, Any], chat: bool, draws: int = 1) -> list[Body]:
    """The answers to so many draws of a Completion, at least one. Raises Malformed.

    What a call cost is parted among its answers.
    """
    choices = _choices(data, draws)
    usage = data.get("usage") or {}
    parts = {
        name: _parts(usage.get(field), len(choices))
        for name, field in (("tokens_in", "prompt_tokens"), ("tokens_out", "completion_tokens"))
    }
    answers = []
    for place, choice in enumerate(choices):
        answer: Body = {
            "text": _text(choice, chat),
            **{name: part[place] for name, part in parts.items()},
            "finish": choice.get("finish_reason"),
            "model": data.get("model"),
        }
        if len(choices) > 1:
            answer["together"] = len(choices)
        if tokens := _logprobs(choice.get("logprobs")):
            answer["tokens"] = tokens
        answers.append(answer)
    return answers


def read_embedding(data: Mapping[str, Any]) -> Body:
    """The answer to an Embedding. Raises Malformed."""
    try:
        return dict(packed(np.array(data["data"][0]["embedding"], np.float64)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Malformed("the answer has no embedding") from error


def _text(choice: Mapping[str, Any], chat: bool) -> str:
    message = choice.get("message") if chat else choice
    text = message.get("content" if chat else "text") if isinstance(message, dict) else None
    if text is None and isinstance(message, dict) and isinstance(message.get("refusal"), str):
        text = ""  # it was asked and would not say: an answer, though one that nobody can parse
    if text is None and chat and isinstance(message, dict) and choice.get("finish_reason") == "length":
        text = ""  # all of it went into reasoning
    if not isinstance(text, str):
        raise Malformed("the answer has no text")
    return text


def _parts(count: int | None, parts: int) -> list[int | None]:
    """A count in whole parts that add up to it."""
    if count is None:
        return [None] * parts
    return [count // parts + (place < count % parts) for place in range(parts)]


def _choices(data: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    choices = data.get("choices")
    if not isinstance(choices, list) or not 1 <= len(choices) <= most:
        count = len(choices) if isinstance(choices, list) else "no"
        raise Malformed(f"the answer has {count} choices, not {most}")
    if not all(isinstance(choice, dict) for choice in choices):
        raise Malformed("a choice is no JSON object")
    return sorted(choices, key=lambda choice: choice.get("index") or 0)


def _logprobs(found: Any) -> list[Body]:
    """`[{"text", "logprobs": {text: …}}, …]` from either endpoint's form."""
    if not isinstance(found, dict):
        return []
    try:
        return _of_chat(found) if isinstance(found.get("content"), list) else _of_completions(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"log-probabilities in an unknown form: {error}") from error


def _of_chat(found: Mapping[str, Any]) -> list[Body]:
    return [
        {
            "text": token["token"],
            "logprobs": {token["token"]: _short(token["logprob"])}
            | {other["token"]: _short(other["logprob"]) for other in token.get("top_logprobs") or ()},
        }
        for token in found["content"]
    ]


def _of_completions(found: Mapping[str, Any]) -> list[Body]:
    texts, own, tops = (found.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not len(texts) == len(own) == len(tops):
        return []
    return [
        {
            "text": text,
            "logprobs": ({} if logprob is None else {text: _short(logprob)})
            | {other: _short(value) for other, value in (top or {}).items()},
        }
        for text, logprob, top in zip(texts, own, tops, strict=True)
    ]


def _short(value: float) -> float:
    return round(float(value), 5)


# Slots, by having the prompt echoed


@dataclass(frozen=True)
class Echo:
    """How a server's echo is read: the log-probabilities for a token stand `shift` places further on, and
    `top` is the highest number that is one token."""

    shift: int = 0
    top: int = 10


def echo_request(model: str, payload: Slots, top: int) -> tuple[str, Body, list[int]]:
    """Path, body, and where in the prompt each slot stands, in characters. top: the highest number."""
    text = "".join(_written(piece, top) for piece in (*payload.prefix, *payload.explanation))
    places = []
    for piece in payload.excerpt:
        if isinstance(piece, Slot):
            places.append(len(text))
        text += _written(piece, top)
    return "/completions", _echoed(model, text), places


def _written(piece: Piece, top: int) -> str:
    if isinstance(piece, Number):
        return str(min(piece.value, top))
    return piece.filler if isinstance(piece, Slot) else piece


def _echoed(model: str, text: str, *, echo: bool = True) -> Body:
    # Some servers take max_tokens 0 for "as many as you like".
    return {
        "model": model,
        "prompt": text,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": ALTERNATIVES,
        "echo": echo,
    }


def read_echo(data: Mapping[str, Any], text: str, places: Sequence[int], echo: Echo) -> Body:
    """The answer to Slots. Raises Malformed when no token begins where a slot stands."""
    tokens = _logprobs(_choices(data, 1)[0].get("logprobs"))
    begins = _begins([token["text"] for token in tokens], text)
    rows, masses = [], []
    for place in places:
        at = begins.get(place)
        if at is None or not 0 <= at + echo.shift < len(tokens):
            raise Malformed("the echoed tokens do not begin where the numbers stand")
        row, mass = numbers_of(tokens[at + echo.shift]["logprobs"], echo.top)
        rows.append(row)
        masses.append(mass)
    return {"probabilities": rows, "mass": masses, "top": echo.top}


def passage_request(model: str, payload: Passage) -> tuple[str, Body]:
    return "/completions", _echoed(model, payload.before + payload.text)


def read_passage(data: Mapping[str, Any], payload: Passage, echo: Echo) -> Body:
    """The answer to a Passage: of all tokens that begin behind the text's first character.

    Raises Malformed when the echo is another text, Unlisted when it lacks the log-probability of a token,
    which it may where they stand shifted: only the likeliest are then to be had.
    """
    tokens = _logprobs(_choices(data, 1)[0].get("logprobs"))
    whole = payload.before + payload.text
    begins = _begins([token["text"] for token in tokens], whole)
    if not begins:
        raise Malformed("the echo is not the text that was sent")
    found = []
    for place, at in sorted(begins.items()):
        if len(payload.before) < place < len(whole):
            row = tokens[at + echo.shift]["logprobs"] if 0 <= at + echo.shift < len(tokens) else {}
            if tokens[at]["text"] not in row:
                raise Unlisted("the echo does not say how likely every token is")
            found.append(row[tokens[at]["text"]])
    return passage(found)


def numbers_of(logprobs: Mapping[str, float], top: int) -> tuple[list[float], float]:
    """Probabilities of 0…10 among themselves, all 0 where none is there, and the mass that they have.

    A number with a space in front is another token, not what stands behind a tab. top: the highest number.
    """
    found = [0.0] * len(NUMBERS)
    for text, logprob in logprobs.items():
        if text in NUMBERS[: top + 1]:
            found[int(text)] += math.exp(logprob)
    mass = math.fsum(found)
    return [round(p / mass, 6) if mass > 0 else 0.0 for p in found], round(min(mass, 1.0), 6)


def _begins(tokens: Sequence[str], text: str) -> dict[int, int]:
    """Which token begins at each character of the text; the tokens may have more in front (a BOS)."""
    start = "".join(tokens).find(text)
    if start < 0:
        return {}
    begins, at = {}, -start
    for number, token in enumerate(tokens):
        if token:
            begins[at] = number
        at += len(token)
    return begins


_PROBE = "one\t1\ntwo\t2\nten\t10\nthree\t"


def probe_requests(model: str) -> list[tuple[str, Body]]:
    """Two calls that must say the same: what follows the probe, as its completion and inside an echo."""
    return [
        ("/completions", _echoed(model, _PROBE, echo=False)),
        ("/completions", _echoed(model, _PROBE + "unknown\n")),
    ]


def read_probe(completed: Mapping[str, Any], echoed: Mapping[str, Any]) -> Echo | None:
    """How the server's echo is to be read; None where it says nothing that can be."""
    text = _PROBE + "unknown\n"
    following = _logprobs(_choices(completed, 1)[0].get("logprobs"))
    tokens = _logprobs(_choices(echoed, 1)[0].get("logprobs"))
    begins = _begins([token["text"] for token in tokens], text)
    at, ten = begins.get(len(_PROBE)), begins.get(text.index("10"))
    if not following or at is None or ten is None:
        return None
    top = 10 if tokens[ten]["text"] == "10" else 9
    for shift in (0, -1, 1):
        if 0 <= at + shift < len(tokens) and _alike(following[0]["logprobs"], tokens[at + shift]["logprobs"]):
            return Echo(shift, top)
    return None


def _alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two lists of log-probabilities are of one distribution: the five likeliest, within 0.1."""
    likeliest = sorted(one, key=lambda text: -one[text])[:5]
    return len(likeliest) > 1 and all(
        text in other and abs(one[text] - other[text]) < 0.1 for text in likeliest
    )
