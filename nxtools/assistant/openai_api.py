"""Assistants behind an OpenAI-compatible API: OpenAI, vLLM, llama-server, Ollama, LM Studio, OpenRouter.

Several calls are under way at once (`nxtools.assistant.calls`), and every answer is handed on as it arrives,
so that what was paid for is stored before anything else happens. What can never work (401, 403, 404) ends the
run; anything else that comes to nothing is a failure of that ask alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from nxtools.assistant.calls import Calls
from nxtools.assistant.openai_server import PASSING, Server, Unanswered
from nxtools.assistant.openai_wire import (
    Echo,
    Malformed,
    Unlisted,
    echo_request,
    passage_request,
    probe_requests,
    read_completions,
    read_echo,
    read_embedding,
    read_passage,
    read_probe,
    request,
)
from nxtools.assistant.protocol import Completion, Embedding, Message, Passage, Slots
from nxtools.errors import ModelError, UsageError
from nxtools.stage import Answer, Answered, Ask, Failure, Pull

WHOLE_TRIES = 3  # how often a call is made whose answer arrives, but not whole

# Options that are about the calls. All others are fields of the request, and part of the identity.
_OURS = {"jobs": 8, "timeout": 300.0, "retries": 6, "max-calls": 0, "endpoint": "chat", "identity": ""}


class OpenAIAssistant:
    """A model behind an OpenAI-compatible API.

    `base_url`: None for `OPENAI_BASE_URL`, or else OpenAI itself. Options: `jobs` calls under way at once,
    `timeout` seconds without an answer, `retries` of the client, `max-calls` (0: any number), `endpoint`
    "chat" or "completions" (for base models), `identity` in place of base URL and model. Any other option
    goes into every request as it is.

    The key comes from `NXTOOLS_API_KEY`, or for OpenAI and for `OPENAI_BASE_URL` from `OPENAI_API_KEY`.
    Raises UsageError for options that make no sense.
    """

    def __init__(
        self, model: str, base_url: str | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        given = {
            name.replace("_", "-") if name.replace("_", "-") in _OURS else name: value
            for name, value in (options or {}).items()
        }
        ours = {name: _typed(name, given.pop(name, default), default) for name, default in _OURS.items()}
        self.name = f"openai:{model}"
        self.model = model
        self._server = Server(base_url, model, timeout=ours["timeout"], retries=ours["retries"], kept=given)
        self._calls = Calls(self.name, max(1, ours["jobs"]), ours["max-calls"], self._call)
        self.chat: bool = ours["endpoint"] == "chat"
        if ours["endpoint"] not in ("chat", "completions"):
            raise UsageError(f"the endpoint is chat or completions, not {ours['endpoint']!r}")
        self.extra: dict[str, Any] = given
        self.tokens_in = self.tokens_out = 0
        self._ours = ours
        self._abilities: dict[str, bool] = {}
        self._echo: Echo | None = None
        self._counting = threading.Lock()
        self._trying = threading.Lock()

    # What it is

    def identity(self) -> dict[str, Any]:
        """Base URL, model, what a local server says of it, and the fields added to requests; never the key.

        A model served over plain http is taken for a local one, where a name says little: the server is
        asked what it serves. Raises ModelError when it cannot be reached.
        """
        settings = {"endpoint": "chat" if self.chat else "completions", "options": self.extra}
        if self._ours["identity"]:
            return {"engine": "openai", "identity": self._ours["identity"], **settings}
        said = self._served
        return {
            "engine": "openai",
            "base_url": self._server.base_url,
            "model": self.model,
            "server": said,
            **settings,
        }

    @cached_property
    def _served(self) -> dict[str, Any] | None:
        if not self._server.base_url.startswith("http://"):
            return None
        listed = self._server.get("/models")
        entries = listed.get("data") if isinstance(listed, dict) else None
        entries = [e for e in entries or () if isinstance(e, dict) and "id" in e]
        named = [e for e in entries if e["id"] == self.model] or (entries if len(entries) == 1 else [])
        steady = ("id", "root", "meta", "max_model_len")  # others change with every start of a server
        return {key: named[0][key] for key in steady if key in named[0]} if named else None

    def context(self) -> int | None:
        """What the server says in `max_model_len`, as vLLM does."""
        size = (self._served or {}).get("max_model_len")
        return size if isinstance(size, int) else None

    def count_tokens(self, text: str) -> int | None:
        return None

    def has(self, ability: str) -> bool:
        """Tries it out with one or two short calls, the first time.

        "slots", "passages": the completions endpoint echoes prompts with log-probabilities, which stand where
        they should (the distribution behind a prefix is the one that completing the prefix gives).
        """
        if ability == "chat":
            return self.chat
        if ability == "passages":
            ability = "slots"
        if ability not in ("slots", "logprobs", "grammar", "schema", "embeddings"):
            return False
        if ability not in self._abilities:
            self._abilities[ability] = self._try(ability)
        return self._abilities[ability]

    def _try(self, ability: str) -> bool:
        try:
            if ability == "slots":
                found = [self._tried(*one) for one in probe_requests(self.model)]
                self._echo = read_probe(*found)
                return self._echo is not None
            if ability == "embeddings":
                body = {"model": self.model, "input": "Hello.", "encoding_format": "float"}
                return bool(read_embedding(self._tried("/embeddings", body | self.extra)))
            wanted = Completion(
                (Message("user", "Say hello."),),
                temperature=0.0,
                max_tokens=16,
                logprobs=2 if ability == "logprobs" else 0,
                grammar='root ::= "<7>"' if ability == "grammar" else None,
                schema=_SEVEN if ability == "schema" else None,
            )
            answer = read_completions(self._tried(*self._request(wanted)), self.chat)[0]
        except Malformed:
            return False
        except Unanswered as error:
            if error.kind in PASSING:  # it says nothing about what the server can do
                raise ModelError(f"{self._server.base_url} could not be tried out: {error}") from error
            return False
        if ability == "logprobs":
            return any(len(token["logprobs"]) > 1 for token in answer.get("tokens", ()))
        text = "".join(answer["text"].split())
        return text == ("<7>" if ability == "grammar" else '{"number":7}')

    def _tried(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a call that tries something out; patient where it fails for a passing reason."""
        try:
            return self._server.send(path, body, probing=True, retries=1)
        except Unanswered as error:
            if error.kind not in PASSING:
                raise
        return self._server.send(path, body, probing=True)

    # What it does

    def answer(self, pull: Pull) -> Iterator[Answered]:
        """Yields each answer when it arrives, as `Calls` does."""
        return self._calls.answer(pull)

    @property
    def calls(self) -> int:
        """How many were made."""
        return self._calls.made

    def _call(self, asks: list[Ask]) -> tuple[Answered, list[Ask]]:
        """One ask, or several draws of one prompt, answered by one call.

        Servers that give fewer choices than they were asked for, or refuse to, are asked for each draw from
        then on.
        """
        try:
            answers = self._answers(asks[0].payload, len(asks))
        except Unanswered as error:
            if len(asks) > 1 and error.kind in ("refused", "malformed", "http-422"):
                self._calls.together = False
                return [], asks
            failure = Failure("assistant", error.kind, str(error))
            return [(ask, failure) for ask in asks], []
        if len(answers) < len(asks):
            self._calls.together = False
        return list(zip(asks, answers, strict=False)), asks[len(answers) :]

    def _answers(self, payload: Completion | Slots | Passage | Embedding, draws: int) -> list[Answer]:
        """As many answers as draws, or fewer where the server does not give so many at once."""
        for _ in range(WHOLE_TRIES):
            try:
                if isinstance(payload, Embedding):
                    data = self._embedded(payload)
                    answers = [read_embedding(data)]
                elif isinstance(payload, Passage):
                    echo = self._echoing()
                    path, body = passage_request(self.model, payload)
                    answers = [
                        read_passage(data := self._server.send(path, body | self.extra), payload, echo)
                    ]
                elif isinstance(payload, Slots):
                    echo = self._echoing()
                    path, body, places = echo_request(self.model, payload, echo.top)
                    data = self._server.send(path, body | self.extra)
                    answers = [read_echo(data, body["prompt"], places, echo)]
                else:
                    data = self._server.send(*self._request(payload, draws))
                    answers = read_completions(data, self.chat, draws)
            except Malformed as error:
                malformed = error
                continue
            except Unlisted as error:
                hint = "--with-option logprobs=N asks for more alternatives"
                raise Unanswered("passages", f"{error} ({hint})") from error
            self._count(data)
            return answers
        raise Unanswered("malformed", self._server.safe(str(malformed)))

    def _embedded(self, payload: Embedding) -> dict[str, Any]:
        body = {"model": self.model, "input": payload.text, "encoding_format": "float"}
        return self._server.send("/embeddings", body | self.extra)

    def _echoing(self) -> Echo:
        """How to read echoes: found out once, though the store may have known that the server can."""
        with self._trying:
            able = self.has("slots")
        if not able or self._echo is None:
            raise Unanswered("slots", "the server does not echo prompts with log-probabilities")
        return self._echo

    def _request(self, payload: Completion, draws: int = 1) -> tuple[str, dict[str, Any]]:
        path, body = request(self.model, payload, chat=self.chat, draws=draws)
        return path, self._server.fitted(body) | self.extra

    def _count(self, data: dict[str, Any]) -> None:
        usage = data.get("usage") or {}
        with self._counting:
            self.tokens_in += usage.get("prompt_tokens") or 0
            self.tokens_out += usage.get("completion_tokens") or 0


_SEVEN = {
    "type": "object",
    "properties": {"number": {"$ref": "#/$defs/n"}},
    "required": ["number"],
    "additionalProperties": False,
    "$defs": {"n": {"type": "integer", "enum": [7]}},
}


def _typed(name: str, value: Any, default: Any) -> Any:
    try:
        return type(default)(value)
    except (TypeError, ValueError):
        raise UsageError(f"the option {name!r} takes a number, not {value!r}") from None
