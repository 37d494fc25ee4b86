"""A chat completions server that answers at once in its head and late on the wire, for measuring clients.

Every request waits 50 ms to 2 s, uniformly, by a hash of its last message: the same conversation takes the
same time however and whenever it is asked. `GET` returns and resets the sums since the last `GET`.

Example:
  python benchmarks/latency_server.py --scale 0.5
"""

import argparse
import asyncio
import hashlib
import json
from typing import Any

SHORTEST, LONGEST = 0.05, 2.0

_ANSWERS = (
    ("JSON list", '["symptom: dry cough", "symptom severity: worse at night"]'),
    ("content_score", "<think>one</think>\n<format_score>1.0</format_score>\n<content_score>0.5</content_score>"),
    ("", "Is the cough dry, or does it bring up phlegm?"),
)


def latency(text: str, *, seed: int, scale: float) -> float:
    """Seconds for the conversation that ends in this text."""
    digest = hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
    return scale * (SHORTEST + (LONGEST - SHORTEST) * int.from_bytes(digest) / 2**64)


class Statistics:
    """What was asked since the last look."""

    def __init__(self) -> None:
        self.requests = 0
        self.latency = 0.0
        self.running = self.most_running = 0

    def take(self) -> bytes:
        """The sums as JSON, which start again."""
        seen = {"requests": self.requests, "latency": self.latency, "most_running": self.most_running}
        self.requests, self.latency, self.most_running = 0, 0.0, self.running
        return json.dumps(seen).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, statistics: Statistics, *, seed: int, scale: float) -> None:
        self._statistics = statistics
        self._seed = seed
        self._scale = scale
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        """Keeps the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers once a request is complete."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(body) < length:
            return
        self._received = b""
        if head.startswith(b"GET /v1/models"):
            self._write(b'{"object": "list", "data": [{"id": "bench"}]}')
        elif head.startswith(b"GET"):
            self._write(self._statistics.take())
        else:
            self._answer_later(json.loads(body))

    def _answer_later(self, request: dict[str, Any]) -> None:
        """Sends the answer when its time has come."""
        messages = request["messages"]
        seconds = latency(messages[-1]["content"], seed=self._seed, scale=self._scale)
        text = next(answer for mark, answer in _ANSWERS if mark in messages[0]["content"])
        choices = [
            {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for index in range(request.get("n", 1))
        ]
        completion = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": choices,
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
        statistics = self._statistics
        statistics.requests += 1
        statistics.latency += seconds
        statistics.running += 1
        statistics.most_running = max(statistics.most_running, statistics.running)
        asyncio.get_running_loop().call_later(seconds, self._answer, json.dumps(completion).encode())

    def _answer(self, body: bytes) -> None:
        """The answer that was waiting."""
        self._statistics.running -= 1
        self._write(body)

    def _write(self, body: bytes) -> None:
        """One response."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def serve(*, seed: int, scale: float) -> None:
    """Serves on a free port of loopback and prints the base URL."""
    statistics = Statistics()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(statistics, seed=seed, scale=scale), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all latencies")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other latencies")
    arguments = parser.parse_args()
    asyncio.run(serve(seed=arguments.seed, scale=arguments.scale))
