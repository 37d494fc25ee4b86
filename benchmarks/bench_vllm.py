"""Times the vllm engine on a CPU against one conversation per call and against a bare `LLM.chat`.

Runs in the environment of `make test-vllm`, with a tiny random Qwen2 model:

  python benchmarks/bench_vllm.py

All three get the same conversations, sampling and vLLM, in one process and one thread; the repetitions alternate
and the best of each counts, because other work on the machine only ever makes one slower. The ratios are given by
the clock and, for a machine with other work, by processor time. The overhead is step A over the sample
logs with an engine that answers at once.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "vllm_env")]  # runs without being installed; the tests' tiny model

from tuner.learn_to_ask.data_prepare.extract_info import extract_info  # noqa: E402
from tuner.learn_to_ask.domains import default_domain  # noqa: E402
from tuner.learn_to_ask.engines.base import Reply, Request, Sampling  # noqa: E402
from tuner.learn_to_ask.engines.job import JobSettings  # noqa: E402
from tuner.learn_to_ask.engines.vllm import VLLMEngine  # noqa: E402
from tuner.learn_to_ask.prompt import rollout_messages  # noqa: E402

SAMPLE_LOGS = ROOT / "tuner/learn_to_ask/sample_data/train_origin.jsonl"
TARGET_OVER_LOOP, TARGET_OVER_BARE, TARGET_OVERHEAD_MS = 15, 0.9, 1.0
# One process, one thread and little cache: this is about how vLLM is fed, and threads that wait for each other
# on a machine with other work swing by a factor of ten.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}

Messages = list[dict[str, str]]


class NullEngine:
    """Answers at once, so that what remains is the overhead of our own code."""

    description = "null"

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the same short list for each request."""
        for request in requests:
            yield Reply(request.key, ['["symptom: cough"]'] * sampling.n, prompt_tokens=1, completion_tokens=1)

    def summary(self) -> list[tuple[str, object]]:
        """Nothing to tell."""
        return []

    def close(self) -> None:
        """Holds nothing."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=512)
    parser.add_argument("--loop_conversations", type=int, default=64, help="measured one at a time, then scaled up")
    parser.add_argument("--max_tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--top_p", type=float, default=0.95, help="as in step 3")
    parser.add_argument("--repetition_penalty", type=float, default=1.0, help="1.2 as in step 3 (slow on a CPU)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each, alternating; the best counts")
    arguments = parser.parse_args()
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})

    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        overhead = min(step_a_overhead(Path(folder) / f"{index}.jsonl") for index in range(arguments.repetitions))
        compare(Path(folder), arguments)
    report("own code in step A, ms a sample", overhead * 1000, TARGET_OVERHEAD_MS, at_least=False)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    """Times the three ways of asking the same vLLM."""
    from tiny_model import make_tiny_model

    model = make_tiny_model(folder / "model", context=1024)
    engine = VLLMEngine(str(model), seed=0, dtype="float32", enforce_eager=True)
    sampling = Sampling(
        temperature=1.0,
        top_p=arguments.top_p,
        max_tokens=arguments.max_tokens,
        repetition_penalty=arguments.repetition_penalty,
    )
    conversations = read_conversations(arguments.conversations)
    some = conversations[: arguments.loop_conversations]
    ways: dict[str, Callable[[], tuple[int, int]]] = {
        "one at a time": lambda: one_at_a_time(engine, some, sampling, folder / "loop.jsonl"),
        "vllm engine": lambda: with_engine(engine, conversations, sampling),
        "bare LLM.chat": lambda: bare_chat(engine, conversations, sampling),
    }
    bare_chat(engine, conversations[:64], sampling)  # warms up
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for repetition in range(arguments.repetitions):
        # The order turns, so that no way always runs in the same place.
        for name in [*ways][repetition % len(ways) :] + [*ways][: repetition % len(ways)]:
            engine._llm.reset_prefix_cache()  # nobody profits from what another has computed
            runs[name].append(timed(ways[name]))
            print(f"  {name:<14}  {runs[name][-1]}", flush=True)
    engine.close()

    for clock in ("clock", "processor"):
        best = {name: max(run.tokens_a_second(clock) for run in runs[name]) for name in ways}
        print(
            f"by {clock} time, best of {arguments.repetitions}, one at a time measured over {len(some)} conversations:"
        )
        for name, rate in best.items():
            seconds = len(conversations) * runs[name][0].tokens / runs[name][0].answered / rate
            print(f"  {name:<14}  {rate:7.0f} tokens/s, {seconds:7.1f} s for {len(conversations)} conversations")
        report("  engine over one at a time", best["vllm engine"] / best["one at a time"], TARGET_OVER_LOOP)
        report("  engine over bare LLM.chat", best["vllm engine"] / best["bare LLM.chat"], TARGET_OVER_BARE)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run answered and took."""

    answered: int
    tokens: int
    clock: float
    processor: float

    def tokens_a_second(self, clock: str) -> float:
        """Throughput by `clock` or `processor` time."""
        return self.tokens / (self.clock if clock == "clock" else self.processor)

    def __str__(self) -> str:
        return (
            f"{self.answered} conversations, {self.tokens} tokens: {self.clock:.2f} s by the clock, "
            f"{self.processor:.2f} s of processor"
        )


def timed(way: Callable[[], tuple[int, int]]) -> Run:
    """Runs one way of asking."""
    clock, processor = time.perf_counter(), time.process_time()
    answered, tokens = way()
    return Run(answered, tokens, time.perf_counter() - clock, time.process_time() - processor)


def one_at_a_time(
    engine: VLLMEngine, conversations: list[Messages], sampling: Sampling, output: Path
) -> tuple[int, int]:
    """The published way: one conversation per call, each result appended to the file before the next call."""
    parameters = vllm_sampling(sampling)
    tokens = 0
    for messages in conversations:
        result = engine._llm.chat(messages, parameters, use_tqdm=False)[0]
        tokens += len(result.outputs[0].token_ids)
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"messages": messages, "answer": result.outputs[0].text}) + "\n")
    return len(conversations), tokens


def with_engine(engine: VLLMEngine, conversations: list[Messages], sampling: Sampling) -> tuple[int, int]:
    """Our engine."""
    requests = (Request(key, messages) for key, messages in enumerate(conversations))
    replies = list(engine.generate(requests, sampling))
    return len(replies), sum(reply.completion_tokens for reply in replies)


def bare_chat(engine: VLLMEngine, conversations: list[Messages], sampling: Sampling) -> tuple[int, int]:
    """Everything in one call of the library: nothing is kept until all is done."""
    results = engine._llm.chat(conversations, vllm_sampling(sampling), use_tqdm=False)
    return len(results), sum(len(result.outputs[0].token_ids) for result in results)


def vllm_sampling(sampling: Sampling) -> Any:
    """What a user of the library would write."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        repetition_penalty=sampling.repetition_penalty,
    )


def read_conversations(count: int) -> list[Messages]:
    """The first `count` prompts of a rollout over the sample logs, as far as the doctor speaks next."""
    conversations: list[Messages] = []
    with SAMPLE_LOGS.open(encoding="utf-8") as file:
        for line in file:
            messages = json.loads(line)["messages"]
            for end in range(1, len(messages) + 1):
                if messages[end - 1]["role"] == "user":
                    conversations.append(rollout_messages(messages[:end], "Ra+Rs"))
    if len(conversations) < count:
        raise SystemExit(f"the sample logs hold {len(conversations)} conversations: lower --conversations")
    return conversations[:count]


def step_a_overhead(output: Path) -> float:
    """Seconds that step A takes for each sample with an engine that answers at once, journal and output included."""
    started = time.perf_counter()
    with redirect_stdout(StringIO()):
        extract_info(
            input_file=SAMPLE_LOGS,
            output_file=output,
            settings=JobSettings(
                make_engine=NullEngine, max_retries=0, max_failures=0.0, resume=False, overwrite=False
            ),
            domain=default_domain(),
            strict=True,
        )
    seconds = time.perf_counter() - started
    with output.open("rb") as file:
        return seconds / sum(1 for _ in file)


def report(what: str, value: float, target: float, *, at_least: bool = True) -> None:
    """Prints a figure beside its target."""
    reached = value >= target if at_least else value < target
    print(f"{what}: {value:.3g} (target {'>=' if at_least else '<'} {target:g}: {'reached' if reached else 'MISSED'})")


if __name__ == "__main__":
    main()
