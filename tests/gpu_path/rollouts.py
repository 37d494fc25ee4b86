"""What the engines rolled out, and what a checkpoint of the trainer says of the same tokens."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from fake_gpus import RECIPE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM


@dataclass(frozen=True)
class Rollout:
    """One line of `RecordRollouts`.

    Attributes:
        step: It was made for.
        version: Of the weights, as its engine counts.
        tokens: Of prompt and response.
        prompt_length: Of the prompt, in tokens.
        logprobs: Of the response's tokens, by the engine.
        reward: From the judge; NaN where grading failed.
    """

    step: int
    version: int
    tokens: list[int]
    prompt_length: int
    logprobs: list[float]
    reward: float

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens of the prompt, which tell the task."""
        return tuple(self.tokens[: self.prompt_length])


def recorded(file: Path) -> dict[str, object]:
    """Changes of the config that have every rollout written down."""
    operator = {"name": "record_rollouts.RecordRollouts", "args": {"file": str(file)}}
    return {"data_processor__experience_pipeline__operators": [operator]}


def read_rollouts(file: Path, skip: int = 0) -> list[Rollout]:
    """Reads what was recorded, after the first lines."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Rollout(**json.loads(line)) for line in lines[skip:]]


def mean_difference(model_folder: Path, rollouts: list[Rollout]) -> float:
    """Mean absolute difference between the engines' log-probabilities and those of a model, over all tokens."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    differences: list[float] = []
    for rollout in rollouts:
        ids = torch.tensor([rollout.tokens])
        with torch.no_grad():
            scores = torch.log_softmax(model(ids).logits[0, :-1], dim=-1)
        own = scores.gather(1, ids[0, 1:, None])[rollout.prompt_length - 1 :, 0]
        differences += (own - torch.tensor(rollout.logprobs)).abs().tolist()
    return sum(differences) / len(differences)


def scalars(job: Path, name: str) -> dict[int, float]:
    """A metric of a run by step, from tensorboard's files."""
    found: dict[int, float] = {}
    for folder in sorted({file.parent for file in (job / "monitor").rglob("events*")}):
        events = EventAccumulator(str(folder))
        events.Reload()
        if name in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars(name)}
    return found


def evaluate(policy: Path, test_file: Path, folder: Path, *, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Script 3 on a policy, with the offline grader."""
    script = RECIPE / "data_prepare" / "3_rollout_then_evaluate.py"
    flags = [
        f"--eval_model_path={policy}",
        "--eval_engine=transformers",
        "--grader_engine=offline",
        "--rollout_repeat=1",
    ]
    files = {
        "test_file_path": test_file,
        "rollout_file_path": folder / "rollout.jsonl",
        "eval_file_path": folder / "eval.jsonl",
    }
    flags += [f"--{name}={file}" for name, file in files.items()]
    return subprocess.run(
        [sys.executable, str(script), *flags], env=env, capture_output=True, text=True, check=False, timeout=600
    )
