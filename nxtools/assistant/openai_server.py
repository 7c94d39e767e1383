"""An OpenAI-compatible server, reached through the openai client.

The client repeats what failed for a passing reason (429, 5xx, timeouts, cut connections), waiting as long as
the server asks. What a model wants under another name is learned from its first refusal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nxtools.assistant.openai_wire import Malformed, chosen, with_system_in_user
from nxtools.errors import ModelError, UsageError

if TYPE_CHECKING:
    import openai

OPENAI = "https://api.openai.com/v1"
PASSING = ("http-429", "http-502", "http-503", "http-504", "timeout", "connection")

_NO_SYSTEM = re.compile(r"system (role|message|prompt)|roles must alternate", re.IGNORECASE)


class Unanswered(Exception):
    """A call that came to nothing; `kind` is what a failure record calls it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Server:
    """Where a model is served, and the key for it.

    base_url: None for `OPENAI_BASE_URL`, or else OpenAI itself. timeout: seconds without an answer.
    retries: of the client. kept: fields of requests that stay as they are. Raises UsageError for what is no
    address.
    """

    def __init__(
        self, base_url: str | None, model: str, *, timeout: float, retries: int, kept: Collection[str]
    ) -> None:
        from_environment = os.environ.get("OPENAI_BASE_URL", "").strip()
        self.base_url = (base_url or from_environment or OPENAI).rstrip("/")
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname or address.username:
            hint = "such as http://127.0.0.1:8080/v1; keys come from the environment"
            raise UsageError(
                f"--base-url is no address of a server: {address.hostname or base_url}", hint=hint
            )
        self.model = model
        self._timeout = timeout
        self._retries = retries
        self._kept = kept
        self._trusted = self.base_url in (OPENAI, from_environment.rstrip("/"))
        self._reached = False
        self._renamed: dict[str, str | None] = {}  # fields that this model wants under another name, or not
        self._takes_system = True

    def fitted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request as this model wants it, as far as that is known."""
        fitted = chosen(body, self._renamed)
        return fitted if self._takes_system else with_system_in_user(fitted)

    @cached_property
    def _client(self) -> openai.OpenAI:
        import openai

        key = self._key or "none"
        return openai.OpenAI(
            api_key=key,
            base_url=self.base_url,
            timeout=self._timeout,
            max_retries=self._retries,
        )

    @property
    def _key(self) -> str:
        ours = os.environ.get("NXTOOLS_API_KEY", "")
        return ours or (os.environ.get("OPENAI_API_KEY", "") if self._trusted else "")

    def safe(self, message: str) -> str:
        """What a server says, in one short line, without the key should it repeat that."""
        said = " ".join(message.split())
        return (said.replace(self._key, "…") if self._key else said)[:300]

    def get(self, path: str) -> Any:
        client = self._client.with_options(timeout=5.0, max_retries=1)
        try:
            return client.get(path, cast_to=object)
        except Exception as error:
            import openai

            if isinstance(error, openai.NotFoundError | openai.BadRequestError | ValueError):
                return None  # a server that does not say what it serves
            raise self._unusable(error) from None

    def send(
        self, path: str, body: Mapping[str, Any], *, probing: bool = False, retries: int | None = None
    ) -> dict[str, Any]:
        """What the server answers. Raises Unanswered, Malformed, or ModelError where no call can work: not
        from the client's errors, since what a server says may have the key in it and tracebacks are printed.

        probing: an error of the server is an answer too. retries: others than the client's.
        """
        import openai

        client = self._client if retries is None else self._client.with_options(max_retries=retries)
        try:
            data: Any = client.post(path, body=dict(body), cast_to=object)
        except openai.BadRequestError as error:
            if not probing and self._adapt(body, error):
                return self.send(path, self.fitted(body))
            too_long = error.code == "context_length_exceeded" or "context" in str(error).lower()
            raise Unanswered("too-long" if too_long else "refused", self.safe(error.message)) from None
        except openai.APIStatusError as error:
            self._reached = True
            ended = error.status_code in (401, 403) or error.code == "insufficient_quota"
            if ended or (error.status_code == 404 and not probing):
                raise self._unusable(error) from None
            raise Unanswered(f"http-{error.status_code}", self.safe(error.message)) from None
        except openai.APIConnectionError as error:
            if not self._reached and retries is None:
                raise self._unusable(error) from error
            kind = "timeout" if isinstance(error, openai.APITimeoutError) else "connection"
            raise Unanswered(kind, self.safe(f"{error.message} {error.__cause__ or ''}")) from error
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
            if field in body and field in refused and field not in self._kept:
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
            return ModelError(f"{self.base_url}: {self.safe(str(error))}")
        hint = "--base-url URL; --identity NAME does without asking the server what it serves"
        return ModelError(
            f"{self.base_url} cannot be reached: {self.safe(str(error.__cause__ or error))}", hint=hint
        )
