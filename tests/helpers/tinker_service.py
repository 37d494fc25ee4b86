"""A Tinker service without a model: the real protocol, made-up numbers.

It speaks both generations of it: JSON throughout (SDK 0.20 to 0.24), and protobuf for training requests and for the
results of sampling and training (SDK 0.25 and newer), told apart by each request's own headers. Requests are decoded
and results encoded with the message types of the SDK that is installed.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

PROTOBUF = "application/x-protobuf"
MODEL = "org/policy"
SAMPLED = [7, 8, 9]  # the tokens of every answer
LOGPROB = -0.5  # of every token


@dataclass
class TinkerService:
    """What was asked of the service.

    Attributes:
        base_url: Of the service.
        calls: Path and decoded body of every request but heartbeats and telemetry, in order.
        results: Request id -> what `retrieve_future` gives, and of which kind it is.
    """

    base_url: str
    calls: list[tuple[str, Any]] = field(default_factory=list)
    results: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def paths(self) -> list[str]:
        """The last part of every path, without repeated looks at a future."""
        return [path.rpartition("/")[2] for path, _ in self.calls if not path.endswith("retrieve_future")]

    def bodies(self, name: str) -> list[Any]:
        """What was sent to a path, by its last part."""
        return [body for path, body in self.calls if path.rpartition("/")[2] == name]

    def later(self, kind: str, result: Any) -> dict[str, str]:
        """A promise of a result."""
        request_id = f"request-{len(self.results)}"
        self.results[request_id] = (kind, result)
        return {"request_id": request_id, "model_id": "model-1"}


def answer(service: TinkerService, path: str, body: Any) -> dict[str, Any]:
    """What the service says to a request at once."""
    name = path.rpartition("/")[2]
    if name in ("forward", "forward_backward"):
        return service.later("forward_backward", body["lengths"])
    if name == "asample":
        prompt = sum(len(chunk["tokens"]) for chunk in body["prompt"]["chunks"])
        count = body.get("num_samples", 1)
        promise = service.later("sample", (count, prompt if body.get("prompt_logprobs") else 0))
        return promise | {"sample_sequence_ids": [f"{promise['request_id']}-{number}" for number in range(count)]}
    training = {"model_id": "model-1"}
    promised = {
        "create_model": {"type": "create_model", **training},
        "optim_step": {"type": "optim_step"},
        "load_weights": {"type": "load_weights", "path": body.get("path") if isinstance(body, dict) else None},
        "save_weights": {"type": "save_weights", "path": f"tinker://run/weights/{_name(body)}"},
        "save_weights_for_sampler": {
            "type": "save_weights_for_sampler",
            "path": f"tinker://run/sampler_weights/{_name(body)}",
        },
    }
    if name in promised:
        return service.later("json", promised[name])
    info = {"arch": "qwen3", "model_name": MODEL, "tokenizer_id": MODEL}
    at_once = {
        "config": {},
        "dynamic_config": {},
        "create_session": {"type": "create_session", "session_id": "session-1"},
        "create_sampling_session": {"type": "create_sampling_session", "sampling_session_id": "sampling-1"},
        "get_server_capabilities": {"supported_models": [{"model_name": MODEL}]},
        "get_info": {"type": "get_info", "model_data": info, "is_lora": True, "lora_rank": 16, **training},
        "weights_info": {
            "base_model": MODEL,
            "is_lora": True,
            "lora_rank": 16,
            "train_mlp": True,
            "train_attn": True,
            "train_unembed": True,
        },
        "session_heartbeat": {"type": "session_heartbeat"},
        "telemetry": {"status": "accepted"},
        "healthz": {"status": "ok"},
    }
    return at_once.get(name, {"sampler_id": "sampling-1", "base_model": MODEL, "model_path": None})


def _name(body: Any) -> str:
    return str((body or {}).get("path") or "unnamed") if isinstance(body, dict) else "unnamed"


def as_json(kind: str, result: Any) -> dict[str, Any]:
    """A result as SDKs up to 0.24 read it."""
    if kind == "json":
        return dict(result)
    if kind == "sample":
        count, prompt = result
        sequence = {"stop_reason": "stop", "tokens": SAMPLED, "logprobs": [LOGPROB] * len(SAMPLED)}
        found: dict[str, Any] = {"type": "sample", "sequences": [sequence] * count}
        return found | ({"prompt_logprobs": [None, *[LOGPROB] * (prompt - 1)]} if prompt else {})
    tensors = [{"logprobs": {"data": [LOGPROB] * length, "dtype": "float32", "shape": [length]}} for length in result]
    return {"loss_fn_output_type": "ArrayRecord", "loss_fn_outputs": tensors, "metrics": {"loss:sum": 1.0}}


def as_protobuf(kind: str, result: Any) -> bytes:
    """A result as SDKs from 0.25 on ask for it."""
    from tinker.proto import tinker_public_pb2 as messages

    if kind == "sample":
        count, prompt = result
        sample = messages.SampleResponse()
        for _ in range(count):
            sequence = sample.sequences.add()
            sequence.stop_reason = messages.STOP_REASON_STOP
            sequence.tokens = np.array(SAMPLED, dtype=np.int32).tobytes()
            sequence.logprobs = np.full(len(SAMPLED), LOGPROB, dtype=np.float32).tobytes()
        if prompt:
            values = np.full(prompt, LOGPROB, dtype=np.float32)
            values[0] = np.nan
            sample.prompt_logprobs = values.tobytes()
        return bytes(sample.SerializeToString())
    output = messages.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", metrics={"loss:sum": 1.0})
    record = output.loss_fn_outputs.add()
    record.num_datums = len(result)
    tensor = record.fields["logprobs"]
    tensor.dtype = messages.DTYPE_FLOAT32
    tensor.data = np.full(sum(result), LOGPROB, dtype=np.float32).tobytes()
    tensor.offsets = (np.cumsum([0, *result]) * 4).astype(np.int64).tobytes()
    return bytes(output.SerializeToString())


def decode(path: str, body: bytes, headers: Any) -> Any:
    """A request's body; of training requests what the tests look at."""
    if headers.get("Content-Encoding") == "zstd":
        import zstandard

        body = zstandard.ZstdDecompressor().decompress(body)
    if PROTOBUF in headers.get("Content-Type", ""):
        from tinker.proto import tinker_public_pb2 as messages

        request = messages.ForwardBackwardRequest.FromString(body)
        lengths = [sum(len(c.encoded_text.tokens) // 4 for c in datum.model_input) for datum in request.data]
        names = [sorted(datum.loss_fn_inputs) for datum in request.data]
        return {"loss_fn": request.loss_fn, "lengths": lengths, "inputs": names}
    decoded = json.loads(body) if body else None
    if path.rpartition("/")[2] in ("forward", "forward_backward"):
        given = decoded.get("forward_backward_input") or decoded["forward_input"]
        lengths = [sum(len(c["tokens"]) for c in datum["model_input"]["chunks"]) for datum in given["data"]]
        names = [sorted(datum["loss_fn_inputs"]) for datum in given["data"]]
        return {"loss_fn": given["loss_fn"], "lengths": lengths, "inputs": names}
    return decoded


@contextmanager
def tinker_service() -> Iterator[TinkerService]:
    """Serves on a free loopback port until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            body = decode(path, raw, self.headers)
            if not path.endswith(("session_heartbeat", "telemetry")):
                service.calls.append((path, body))
            if not path.endswith("retrieve_future"):
                self._send(json.dumps(answer(service, path, body)).encode(), "application/json")
                return
            kind, result = service.results[body["request_id"]]
            if kind != "json" and PROTOBUF in self.headers.get("Accept", ""):
                self._send(as_protobuf(kind, result), PROTOBUF)
            else:
                self._send(json.dumps(as_json(kind, result)).encode(), "application/json")

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            service.calls.append((path, None))
            self._send(json.dumps(answer(service, path, None)).encode(), "application/json")

        def do_DELETE(self) -> None:
            service.calls.append((self.path, None))
            self._send(b"{}", "application/json")

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Stays quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service = TinkerService(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
