"""The loops that the pipeline is compared with: one conversation per call, every result appended by itself."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.core.grading import parse_grade
from tuner.learn_to_ask.core.labels import parse_info_set
from tuner.learn_to_ask.core.records import Sample, Task
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.prompt import extraction_messages, grading_messages, rollout_messages

Chat = Callable[[list[dict[str, str]], int], list[str]]  # messages, number of answers -> answers


def openai_chat(base_url: str, model: str) -> Chat:
    """Asks with the OpenAI SDK, blocking, as most scripts do."""
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="none")

    def chat(messages: list[dict[str, str]], n: int) -> list[str]:
        sent: Any = messages
        completion = client.chat.completions.create(
            model=model, messages=sent, temperature=0.7, top_p=0.9, max_tokens=512, n=n
        )
        return [choice.message.content or "" for choice in completion.choices]

    return chat


def extract_one_at_a_time(samples: Iterable[Sample], chat: Chat, output: Path) -> int:
    """Step A; returns how many conversations were sent."""
    sent = 0
    for sample in samples:
        info = parse_info_set(chat(extraction_messages(sample.remaining_chat), 1)[0], default_domain().information)
        _append(output, {**sample.model_dump(), "info_set": info})
        sent += 1
    return sent


def evaluate_one_at_a_time(tasks: Iterable[Task], chat: Chat, output: Path, *, repeat: int) -> int:
    """Step 3; returns how many conversations were sent."""
    sent = 0
    for task in tasks:
        rollouts = chat(rollout_messages(task.messages, "Ra+Rs"), repeat)
        grades = []
        for rollout in rollouts:
            scores = parse_grade(chat(grading_messages(task.messages, rollout, task.info_truth), 1)[0])
            grades.append(None if scores is None else [scores.format_score, scores.content_score])
        _append(output, {**task.model_dump(), "rollouts": rollouts, "grades": grades})
        sent += 1 + len(rollouts)
    return sent


def _append(path: Path, record: dict[str, Any]) -> None:
    """Opens the file for each result."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
