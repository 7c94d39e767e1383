"""A conversation as token ids, by the template that comes with a model.

A template is rendered to text, and the text tokenised with the model's markers (`<|im_start|>` …) taken for
what they are. A message that holds such a marker itself must not be able to end its own turn: it is then
tokenised apart from the template, as plain text.

Some templates know no system message (Gemma's refuses it, others leave it out). Its text then stands in front
of the first message of the user.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from nxtools.assistant.protocol import Message
from nxtools.errors import ModelError


class Chat:
    """A model's template and tokenizer. `encode(text, markers)`: ids, with its markers or as plain text.

    Models without a template are given the messages as they are, with an empty line between them.
    """

    def __init__(
        self,
        template: str | None,
        encode: Callable[[str, bool], Sequence[int]],
        begin: Sequence[int],
        special: dict[str, str],
    ) -> None:
        self.template = template
        self._encode = encode
        self._begin = tuple(begin)
        self._special = special

    def ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The prompt behind which the answer begins; a last message of the assistant is gone on with."""
        if self.template is None:
            text = "\n\n".join(message.content for message in messages)
            return self._begin + tuple(self._encode(text, False))
        if not self._takes_system:
            messages = without_system(messages)
        if not any(self._has_markers(message.content) for message in messages):
            return tuple(self._encode(self._rendered(self.template, messages), True))
        return self._in_parts(self.template, messages)

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template puts a system message in front of a conversation."""
        assert self.template is not None
        names = _stand_ins(3)
        roles = ("system", "user", "assistant")
        try:
            text = self._rendered(self.template, [*map(Message, roles, names), Message("user", "a")])
        except ModelError:
            return False
        places = [text.find(name) for name in names]
        return min(places) >= 0 and places == sorted(places)

    def _has_markers(self, text: str) -> bool:
        return list(self._encode(text, True)) != list(self._encode(text, False))

    def _in_parts(self, template: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """The template's parts with markers, the messages without."""
        names = _stand_ins(len(messages))
        rest = self._rendered(
            template, [Message(m.role, name) for m, name in zip(messages, names, strict=True)]
        )
        ids: list[int] = []
        for name, message in zip(names, messages, strict=True):
            before, found, rest = rest.partition(name)
            if not found:
                raise ModelError("the model's chat template leaves out or reorders messages")
            ids += [*self._encode(before, True), *self._encode(message.content, False)]
        return (*ids, *(self._encode(rest, True) if rest else ()))

    def _rendered(self, template: str, messages: Sequence[Message]) -> str:
        continues = messages[-1].role == "assistant"
        rendered = render(
            template,
            [{"role": m.role, "content": m.content} for m in messages],
            add_generation_prompt=not continues,
            enable_thinking=False,  # what Qwen3 and others after it call their switch
            **self._special,
        )
        if not continues:
            return rendered
        end = rendered.rfind(messages[-1].content.strip())
        return rendered[: end + len(messages[-1].content.strip())]


def _stand_ins(count: int) -> list[str]:
    """Texts that stand in no template."""
    return [f"\ue000{number}\ue001" for number in range(count)]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with a system message's text in front of the first message of the user."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *others = messages
    if not others or others[0].role != "user":
        return [Message("user", system.content), *others]
    return [Message("user", f"{system.content}\n\n{others[0].content}"), *others[1:]]


def render(template: str, messages: list[dict[str, str]], **variables: Any) -> str:
    """What a template makes of messages. It is not told the date, so the same messages give the same prompt.

    Raises ModelError where the template refuses them.
    """
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> str:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    try:
        made = environment.from_string(template)
        return made.render(messages=messages, raise_exception=refuse, tools=None, **variables)
    except jinja2.TemplateError as error:
        raise ModelError(f"the model's chat template does not take the prompt: {error}") from error
