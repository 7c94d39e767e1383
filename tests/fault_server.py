"""An OpenAI-compatible server on loopback that answers by script, and fails when it is told to.

    with FaultServer(answer=lambda path, body: chat("hello")) as server:
        OpenAIAssistant("any", server.url)

It counts what it was sent, and which answers it sent out whole.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

Body = dict[str, Any]

PASSING = ("429", "500", "503", "stall", "cut", "truncated", "half", "not-json", "no-choices", "two-choices")


def chat(text: str | None, tokens: list[tuple[str, dict[str, float]]] | None = None, **more: Any) -> Body:
    """A chat completion; tokens: what was written, with the log-probabilities of what might have been."""
    choice: Body = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        "logprobs": None,
    }
    if tokens is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": written,
                    "logprob": logprobs[written],
                    "top_logprobs": [{"token": t, "logprob": p} for t, p in logprobs.items()],
                }
                for written, logprobs in tokens
            ]
        }
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {
        "id": "1",
        "object": "chat.completion",
        "model": "m-2",
        "choices": [choice],
        "usage": usage,
        **more,
    }


def plain(text: str, tokens: list[tuple[str, dict[str, float] | None]] | None = None) -> Body:
    """A completion without chat, as an echo has it too: the first token has no log-probabilities."""
    choice: Body = {"index": 0, "finish_reason": "stop", "text": text, "logprobs": None}
    if tokens is not None:
        choice["logprobs"] = {
            "tokens": [t for t, _ in tokens],
            "token_logprobs": [None if found is None else found.get(t, -30.0) for t, found in tokens],
            "top_logprobs": [found for _, found in tokens],
        }
    return {"id": "1", "object": "text_completion", "model": "m-2", "choices": [choice]}


def models(*names: str) -> Body:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": time.time()} for name in names],
    }


class FaultServer:
    """answer: what to say to a path and a body. fault: what goes wrong with the n-th call, None for nothing.

    A fault is one of PASSING, or a status such as "401". `requests` has the calls in order, `whole` the
    bodies of those whose answer went out whole, `most` how many were under way at once at most.
    """

    def __init__(
        self,
        answer: Callable[[str, Body], Body],
        fault: Callable[[int], str | None] = lambda number: None,
        *,
        served: tuple[str, ...] = ("m",),
        stall: float = 3.0,
    ) -> None:
        self.answer, self.fault, self.stall = answer, fault, stall
        self.requests: list[tuple[str, Body]] = []
        self.headers: list[dict[str, str]] = []
        self.whole: list[bytes] = []
        self.asked_for_models = self.under_way = self.most = 0
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                owner.asked_for_models += 1
                self.say(200, orjson.dumps(models(*served)))

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with owner.lock:
                    number = len(owner.requests)
                    owner.requests.append((self.path, orjson.loads(raw)))
                    owner.headers.append({k.lower(): v for k, v in self.headers.items()})
                    owner.under_way += 1
                    owner.most = max(owner.most, owner.under_way)
                try:
                    owner.respond(self, number, raw)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client did not wait, or was killed
                finally:
                    with owner.lock:
                        owner.under_way -= 1

            def say(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def respond(self, handler: Any, number: int, raw: bytes) -> None:
        path, body = self.requests[number]
        fault = self.fault(number)
        if fault == "stall":
            time.sleep(self.stall)
        if fault in ("cut", "stall"):
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault is not None and fault.isdigit():
            message = f"made up {fault} for {handler.headers['Authorization']}"
            error = orjson.dumps({"error": {"message": message, "code": None, "param": None}})
            handler.say(int(fault), error, {"Retry-After": "0.05"} if fault == "429" else None)
            return
        answer = self.answer(path, body)
        if "error" in answer:
            handler.say(answer.pop("status", 400), orjson.dumps(answer))
            return
        if fault == "no-choices":
            answer["choices"] = []
        elif fault == "two-choices":
            answer["choices"] *= 2
        data = orjson.dumps(answer)
        if fault == "truncated":  # fewer bytes than were promised
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[: len(data) // 2])
            handler.close_connection = True
        elif fault == "half":  # as many bytes as were promised, but the JSON stops
            handler.say(200, data[: len(data) // 2])
        elif fault == "not-json":
            handler.say(200, b"<html>a proxy's idea of an answer</html>", {"Content-Type": "text/html"})
        else:
            handler.say(200, data)
            if fault is None:
                with self.lock:
                    self.whole.append(raw)
