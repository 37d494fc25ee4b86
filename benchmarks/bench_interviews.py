"""Own code of whole interviews: CPU seconds and memory with a policy that answers at once.

python benchmarks/bench_interviews.py
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine, extract_answer
from tuner.learn_to_ask.evaluation.hold_interviews import hold_interviews
from tuner.learn_to_ask.evaluation.interview import print_metrics
from tuner.learn_to_ask.evaluation.roll_out import TRAINED_SAMPLING
from tuner.learn_to_ask.jsonl import write_jsonl
from tuner.learn_to_ask.prompt import extraction_messages
from tuner.learn_to_ask.sample_data.generate import generate_sessions

QUESTIONS = [
    "What does it look like: A) watery, B) slimy or C) loose?",
    "How bad is it: A) mild, B) bearable or C) unbearable?",
    "What brings it on: A) food, B) cold air or C) stress?",
    "Where is it: A) on the left, B) on the right or C) on both sides?",
    "Is there anything else: A) fever, B) vomiting or C) a cough?",
]


def policy(messages: list[dict[str, str]]) -> str:
    """Asks each question once, then stops."""
    asked = sum(message["role"] == "assistant" for message in messages)
    return QUESTIONS[asked] if asked < len(QUESTIONS) else default_domain().stop_token


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    arguments = parser.parse_args()
    domain = default_domain()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]}")
    with tempfile.TemporaryDirectory() as name:
        samples, output = Path(name) / "samples.jsonl", Path(name) / "interviews.jsonl"
        firsts = []
        for logged in generate_sessions(domain, count=arguments.sessions, first_id=1, seed=0):
            first = next(segment(Session.model_validate(logged)))
            items = json.loads(extract_answer(extraction_messages(first.remaining_chat, domain), domain))
            firsts.append(first.model_copy(update={"info_set": items}))
        write_jsonl(samples, firsts)
        settings = JobSettings(
            make_engine=lambda: OfflineEngine(policy), max_retries=0, max_failures=0.0, resume=False, overwrite=False
        )
        started = time.process_time()
        hold_interviews(
            test_file=samples,
            output_file=output,
            settings=settings,
            sampling=TRAINED_SAMPLING,
            domain=domain,
            max_turns=12,
            strict=False,
        )
        held = time.process_time()
        print_metrics(output)
        measured = time.process_time()
        interviews = sum(1 for _ in output.open(encoding="utf-8"))
    turns = interviews * (len(QUESTIONS) + 1)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("interviews  policy's messages  seconds  ms a message  seconds for the metrics  peak MiB")
    print(
        f"{interviews:10,}  {turns:17,}  {held - started:7.1f}  {1000 * (held - started) / turns:12.3f}"
        f"  {measured - held:23.1f}  {memory:8.0f}"
    )


if __name__ == "__main__":
    main()
