"""A chat completions server on loopback that misbehaves as a test asks it to, and keeps count."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What becomes of one request; without arguments a good answer.

    Attributes:
        status: HTTP status.
        headers: Beyond those that HTTP needs.
        body: Sent instead of an answer.
        delay: Seconds before the response.
        hang: No response at all.
        cut: The connection ends in the middle of the body.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    delay: float = 0.0
    hang: bool = False
    cut: bool = False


def http_error(status: int, message: str = "", **headers: str) -> Fault:
    """An error response as OpenAI writes it; `Retry_After="1"` becomes a header."""
    return Fault(
        status=status,
        headers=tuple((name.replace("_", "-"), value) for name, value in headers.items()),
        body=json.dumps({"error": {"message": message, "code": status}}).encode(),
    )


GOOD = Fault()
HANG = Fault(hang=True)
CUT = Fault(cut=True)
INVALID_JSON = Fault(body=b'{"choices": [{"mess')
NO_CHOICES = Fault(body=b'{"choices": []}')
NULL_CONTENT = Fault(
    body=b'{"choices": [{"message": {"content": null}}], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}'
)


@dataclass
class Call:
    """One request as it came.

    Attributes:
        index: 0 for the first.
        method: Of the request.
        path: With the query.
        headers: By lower-case name.
        body: The JSON that was sent.
        answered: Whether a good answer was written in full.
    """

    index: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    answered: bool = field(default=False)

    @property
    def text(self) -> str:
        """The last message, by which tests tell requests apart."""
        return self.body["messages"][-1]["content"]


def in_order(*faults: Fault, then: Fault = GOOD) -> Callable[[Call], Fault]:
    """A plan: the first request gets the first fault, and so on."""
    return lambda call: faults[call.index] if call.index < len(faults) else then


class FaultServer:
    """Serves in a thread of its own, from `with` to the end of its block; `GET /v1/models` is not counted.

    Attributes:
        calls: Every request, unless `record` is off.
        received: Requests so far.
        in_flight: Requests without a response.
        max_in_flight: The most there were at once.
        aborted: Requests whose client went away before the response.
    """

    def __init__(
        self,
        plan: Callable[[Call], Fault] = lambda _: GOOD,
        *,
        answer: Callable[[list[dict[str, str]]], str] = lambda messages: f"re: {messages[-1]['content']}",
        record: bool = True,
        models: Sequence[dict[str, str]] = (),
    ) -> None:
        self._plan = plan
        self._answer = answer
        self._record = record
        listed = json.dumps({"object": "list", "data": models}).encode()
        self._models = Fault(body=listed) if models else Fault(status=404, body=b"")
        self._changed = threading.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.calls: list[Call] = []
        self.received = self.in_flight = self.max_in_flight = self.aborted = 0

    def __enter__(self) -> "FaultServer":
        self._thread.start()
        serving = asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 24)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        async def finish() -> None:
            self._server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def wait_until(self, condition: Callable[["FaultServer"], bool], *, timeout: float = 30.0) -> None:
        """Waits for something that the counters show; an error when it takes too long."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout), "the server waited in vain"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (call := await self._read(reader)) is not None and await self._respond(call, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Call | None:
        """The next request, `None` when the client has closed."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        request_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, path, _ = request_line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        if (method, path) == ("GET", "/v1/models"):
            return Call(-1, method, path, headers, body)
        with self._changed:
            call = Call(self.received, method, path, headers, body)
            self.received += 1
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            if self._record:
                self.calls.append(call)
            self._changed.notify_all()
        return call

    async def _respond(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Does what the plan says; whether the connection can be used on."""
        if call.index < 0:
            writer.write(b"".join(self._response(call, self._models)))
            await writer.drain()
            return True
        fault = self._plan(call)
        try:
            if (fault.hang or fault.delay) and await _client_left(reader, None if fault.hang else fault.delay):
                self.aborted += 1
                return False
            head, body = self._response(call, fault)
            writer.write(head + (body[: len(body) // 2] if fault.cut else body))
            await writer.drain()
            call.answered = fault.status == 200 and fault.body is None and not fault.cut
            return not fault.cut
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def _response(self, call: Call, fault: Fault) -> tuple[bytes, bytes]:
        """Head and body."""
        body = self._completion(call) if fault.body is None else fault.body
        lines: Sequence[str] = (
            f"HTTP/1.1 {fault.status} Status",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in fault.headers),
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body

    def _completion(self, call: Call) -> bytes:
        """A good answer, as often as the request wants it; one token for each word."""
        text = self._answer(call.body["messages"])
        n = call.body.get("n", 1)
        words = sum(len(message["content"].split()) for message in call.body["messages"])
        completion = {
            "object": "chat.completion",
            "model": call.body["model"],
            "choices": [{"index": index, "message": {"role": "assistant", "content": text}} for index in range(n)],
            "usage": {"prompt_tokens": words, "completion_tokens": n * len(text.split())},
        }
        return json.dumps(completion).encode()


async def _client_left(reader: asyncio.StreamReader, seconds: float | None) -> bool:
    """Waits, for ever when `seconds` is `None`; True when the client closes the connection before."""
    try:
        return await asyncio.wait_for(reader.read(1), seconds) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True
