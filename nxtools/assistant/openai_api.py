"""Assistants behind an OpenAI-compatible API: OpenAI, vLLM, llama-server, Ollama, LM Studio, OpenRouter.

Several calls are under way at once (`nxtools.assistant.calls`), and every answer is handed on as it arrives,
so that what was paid for is stored before anything else happens. The openai client repeats what failed for a
passing reason (429, 5xx, timeouts, cut connections), waiting as long as the server asks. What can never work
(401, 403, 404) ends the run; anything else is a failure of that ask alone.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nxtools.assistant.calls import Calls
from nxtools.assistant.openai_wire import (
    Echo,
    Malformed,
    chosen,
    echo_request,
    probe_requests,
    read_completions,
    read_echo,
    read_probe,
    request,
    with_system_in_user,
)
from nxtools.assistant.protocol import Completion, Message, Slots
from nxtools.errors import ModelError, UsageError
from nxtools.stage import Answer, Answered, Ask, Failure, Pull

if TYPE_CHECKING:
    import openai

OPENAI = "https://api.openai.com/v1"
PASSING = ("http-429", "http-502", "http-503", "http-504", "timeout", "connection")
WHOLE_TRIES = 3  # how often a call is made whose answer arrives, but not whole

# Options that are about the calls. All others are fields of the request, and part of the identity.
_OURS = {"jobs": 8, "timeout": 300.0, "retries": 6, "max-calls": 0, "endpoint": "chat", "identity": ""}

_NO_SYSTEM = re.compile(r"system (role|message|prompt)|roles must alternate", re.IGNORECASE)


class Unanswered(Exception):
    """A call that came to nothing; `kind` is what a failure record calls it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


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
        from_environment = os.environ.get("OPENAI_BASE_URL", "").strip()
        self.base_url = (base_url or from_environment or OPENAI).rstrip("/")
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname or address.username:
            hint = "such as http://127.0.0.1:8080/v1; keys come from the environment"
            raise UsageError(
                f"--base-url is no address of a server: {address.hostname or base_url}", hint=hint
            )
        self._calls = Calls(self.name, max(1, ours["jobs"]), ours["max-calls"], self._call)
        self.chat: bool = ours["endpoint"] == "chat"
        if ours["endpoint"] not in ("chat", "completions"):
            raise UsageError(f"the endpoint is chat or completions, not {ours['endpoint']!r}")
        self.extra: dict[str, Any] = given
        self.tokens_in = self.tokens_out = 0
        self._ours = ours
        self._trusted = self.base_url in (OPENAI, from_environment.rstrip("/"))
        self._reached = False
        self._renamed: dict[str, str | None] = {}  # fields that this model wants under another name, or not
        self._takes_system = True
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
            "base_url": self.base_url,
            "model": self.model,
            "server": said,
            **settings,
        }

    @cached_property
    def _served(self) -> dict[str, Any] | None:
        if not self.base_url.startswith("http://"):
            return None
        listed = self._get("/models")
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

        "slots": the completions endpoint echoes prompts with log-probabilities, which stand where they should
        (the distribution behind a prefix is the one that completing the prefix gives).
        """
        if ability == "chat":
            return self.chat
        if ability not in ("slots", "logprobs", "grammar", "schema"):
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
                raise ModelError(f"{self.base_url} could not be tried out: {error}") from error
            return False
        if ability == "logprobs":
            return any(len(token["logprobs"]) > 1 for token in answer.get("tokens", ()))
        text = "".join(answer["text"].split())
        return text == ("<7>" if ability == "grammar" else '{"number":7}')

    def _tried(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a call that tries something out; patient where it fails for a passing reason."""
        try:
            return self._send(path, body, probing=True, retries=1)
        except Unanswered as error:
            if error.kind not in PASSING:
                raise
        return self._send(path, body, probing=True)

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

    def _answers(self, payload: Completion | Slots, draws: int) -> list[Answer]:
        """As many answers as draws, or fewer where the server does not give so many at once."""
        for _ in range(WHOLE_TRIES):
            try:
                if isinstance(payload, Slots):
                    echo = self._echoing()
                    path, body, places = echo_request(self.model, payload, echo.top)
                    data = self._send(path, body | self.extra)
                    answers = [read_echo(data, body["prompt"], places, echo)]
                else:
                    data = self._send(*self._request(payload, draws))
                    answers = read_completions(data, self.chat, draws)
            except Malformed as error:
                malformed = error
                continue
            self._count(data)
            return answers
        raise Unanswered("malformed", self._safe(str(malformed)))

    def _echoing(self) -> Echo:
        """How to read echoes: found out once, though the store may have known that the server can."""
        with self._trying:
            able = self.has("slots")
        if not able or self._echo is None:
            raise Unanswered("slots", "the server does not echo prompts with log-probabilities")
        return self._echo

    def _request(self, payload: Completion, draws: int = 1) -> tuple[str, dict[str, Any]]:
        path, body = request(self.model, payload, chat=self.chat, draws=draws)
        return path, self._fitted(body) | self.extra

    def _fitted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request as this model wants it, as far as that is known."""
        fitted = chosen(body, self._renamed)
        return fitted if self._takes_system else with_system_in_user(fitted)

    def _count(self, data: dict[str, Any]) -> None:
        usage = data.get("usage") or {}
        with self._counting:
            self.tokens_in += usage.get("prompt_tokens") or 0
            self.tokens_out += usage.get("completion_tokens") or 0

    # How it is sent

    @cached_property
    def _client(self) -> openai.OpenAI:
        import openai

        key = self._key or "none"
        return openai.OpenAI(
            api_key=key,
            base_url=self.base_url,
            timeout=self._ours["timeout"],
            max_retries=self._ours["retries"],
        )

    @property
    def _key(self) -> str:
        ours = os.environ.get("NXTOOLS_API_KEY", "")
        return ours or (os.environ.get("OPENAI_API_KEY", "") if self._trusted else "")

    def _safe(self, message: str) -> str:
        """What a server says, in one short line, without the key should it repeat that."""
        said = " ".join(message.split())
        return (said.replace(self._key, "…") if self._key else said)[:300]

    def _get(self, path: str) -> Any:
        client = self._client.with_options(timeout=5.0, max_retries=1)
        try:
            return client.get(path, cast_to=object)
        except Exception as error:
            import openai

            if isinstance(error, openai.NotFoundError | openai.BadRequestError | ValueError):
                return None  # a server that does not say what it serves
            raise self._unusable(error) from error

    def _send(
        self, path: str, body: Mapping[str, Any], *, probing: bool = False, retries: int | None = None
    ) -> dict[str, Any]:
        """What the server answers. Raises Unanswered, Malformed, or ModelError where no call can work.

        probing: an error of the server is an answer too. retries: others than the client's.
        """
        import openai

        client = self._client if retries is None else self._client.with_options(max_retries=retries)
        try:
            data: Any = client.post(path, body=dict(body), cast_to=object)
        except openai.BadRequestError as error:
            if not probing and self._adapt(body, error):
                return self._send(path, self._fitted(body))
            too_long = error.code == "context_length_exceeded" or "context" in str(error).lower()
            raise Unanswered("too-long" if too_long else "refused", self._safe(error.message)) from error
        except openai.APIStatusError as error:
            self._reached = True
            ended = error.status_code in (401, 403) or error.code == "insufficient_quota"
            if ended or (error.status_code == 404 and not probing):
                raise self._unusable(error) from error
            raise Unanswered(f"http-{error.status_code}", self._safe(error.message)) from error
        except openai.APIConnectionError as error:
            if not self._reached and retries is None:
                raise self._unusable(error) from error
            kind = "timeout" if isinstance(error, openai.APITimeoutError) else "connection"
            raise Unanswered(kind, self._safe(f"{error.message} {error.__cause__ or ''}")) from error
        except ValueError as error:
            self._reached = True
            raise Malformed(f"the answer is not JSON: {error}") from error
        self._reached = True
        if not isinstance(data, dict):
            raise Malformed("the answer is not a JSON object")
        return data

    def _adapt(self, body: Mapping[str, Any], error: openai.BadRequestError) -> bool:
        """Whether the request may be put in another way now that it was refused: a field by another name or
        left out, the system message in that of the user (Gemma's template has none)."""
        refused = f"{error.param or ''} {error.message}"
        begins = body.get("messages", [{}])[0].get("role")
        if begins == "system" and _NO_SYSTEM.search(refused):
            self._takes_system = False
            return True
        for field, instead in (("max_tokens", "max_completion_tokens"), ("seed", None)):
            if field in body and field in refused and field not in self.extra:
                self._renamed[field] = instead
                return True
        return False

    def _unusable(self, error: Exception) -> ModelError:
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            hint = "the key comes from NXTOOLS_API_KEY, or for OpenAI from OPENAI_API_KEY"
            return ModelError(f"{self.base_url} refuses the key for {self.model} ({status})", hint=hint)
        if status == 404:
            return ModelError(f"{self.base_url} has no model {self.model} there (404)", hint="--base-url")
        if status is not None:
            return ModelError(f"{self.base_url}: {self._safe(str(error))}")
        hint = "--base-url URL; --identity NAME does without asking the server what it serves"
        return ModelError(
            f"{self.base_url} cannot be reached: {self._safe(str(error.__cause__ or error))}", hint=hint
        )


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
