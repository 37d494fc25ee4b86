"""Checks of the training set: its lines, its decisions, how many steps it makes, what fits the policy's window."""

import dataclasses
import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.core.domain import Domain, stop_token_in_log
from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.domains import default_domain, load_domain
from tuner.learn_to_ask.engines.chat import ChatEncoder
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import rollout_messages
from tuner.learn_to_ask.training.dataset import train_file
from tuner.learn_to_ask.training.preflight.findings import EXAMPLES, Finding, listed, one_line
from tuner.learn_to_ask.training.settings import TrainingSettings

_LORA_FACTOR = 10  # LoRA's learning rate against that of full fine-tuning


@dataclass
class DatasetScan:
    """What the training set holds.

    Attributes:
        tasks: Lines that can be read.
        bad_lines: Line and reason of the first of the other lines.
        bad: How many these are.
        stops: Tasks whose doctor stopped.
        undecided: Tasks without `decision_truth`.
        without_info: Ids of `continue` tasks without `info_truth`.
        from_assistant: Ids of tasks whose last message is the doctor's.
        with_stop_token: Ids of tasks whose dialogue holds the stop token.
        sample: A task that a grader can be tried with.
    """

    tasks: int = 0
    bad_lines: list[str] = field(default_factory=list)
    bad: int = 0
    stops: int = 0
    undecided: int = 0
    without_info: list[str] = field(default_factory=list)
    from_assistant: list[str] = field(default_factory=list)
    with_stop_token: list[str] = field(default_factory=list)
    sample: Task | None = None

    @property
    def continues(self) -> int:
        """Tasks whose doctor went on."""
        return self.tasks - self.stops


def scan_dataset(file: Path, domain: Domain | None = None) -> DatasetScan:
    """Reads the whole training set once."""
    scan, report, domain = DatasetScan(), ReadReport(), domain or default_domain()
    skipped = io.StringIO()
    with redirect_stderr(skipped):  # read_jsonl names the bad lines there and nowhere else
        for task in read_jsonl(file, Task, unique_key="cid", report=report):
            scan.tasks += 1
            scan.stops += task.decision_truth == "stop"
            scan.undecided += "decision_truth" not in task.model_fields_set
            if task.messages[-1]["role"] == "assistant":
                scan.from_assistant.append(task.cid)
            if domain.stops_in(task.messages):
                scan.with_stop_token.append(task.cid)
            if task.decision_truth == "continue":
                if not task.info_truth.strip():
                    scan.without_info.append(task.cid)
                scan.sample = scan.sample or task
    scan.bad = report.skipped
    scan.bad_lines = [
        line.removeprefix(f"{file}:").replace(" skipped:", "", 1)
        for line in skipped.getvalue().splitlines()
        if line.startswith(f"{file}:")
    ]
    return scan


def dataset_findings(scan: DatasetScan, settings: TrainingSettings) -> list[Finding]:
    """Judges what a scan saw."""
    build = "build it again with 2_build_dataset.py"
    findings = [Finding("ok", "dataset", f"{scan.tasks} tasks: {scan.continues} continue, {scan.stops} stop")]
    if not scan.tasks:
        findings = [Finding("fatal", "dataset", f"--data: the train split holds no task; {build}")]
    if scan.bad_lines:
        first = " | ".join(f"line {line}" for line in scan.bad_lines[:EXAMPLES])
        findings.append(Finding("fatal", "dataset lines", f"{scan.bad} cannot be used: {first}; {build}"))
    if scan.without_info:
        said = f"{_named(scan.without_info)} say continue without info_truth: nothing could be rewarded; {build}"
        findings.append(Finding("fatal", "info_truth", said))
    if scan.from_assistant:
        said = f"{_named(scan.from_assistant)} end with a message of the assistant, so there is nothing to answer: "
        findings.append(Finding("fatal", "last message", said + "end them with the patient's message"))
    if scan.with_stop_token:
        said = f"{_named(scan.with_stop_token)}: {stop_token_in_log(load_domain(settings.domain))}"
        findings.append(Finding("fatal", "stop token", said))
    if scan.undecided:
        said = f"{scan.undecided} tasks have no decision_truth and count as continue; add it where the doctor stopped"
        findings.append(Finding("warning", "decision_truth", said))
    if scan.tasks:
        findings += [*_decision_findings(scan, settings), *_batch_findings(scan.tasks, settings)]
    return findings


def _named(cids: list[str]) -> str:
    """How many tasks, and the first of them."""
    return f"{len(cids)} tasks ({one_line(listed(cids))})"


def _decision_findings(scan: DatasetScan, settings: TrainingSettings) -> list[Finding]:
    """Without both decisions a policy learns to always do the same."""
    missing = [name for name, count in (("continue", scan.continues), ("stop", scan.stops)) if not count]
    if not missing:
        return []
    if settings.train_mode == "Ra":
        return [Finding("warning", "decisions", f"no task says {missing[0]}; --train_mode Ra learns questions only")]
    said = f"no task says {missing[0]}: --train_mode {settings.train_mode} would learn never to; add such tasks"
    return [Finding("fatal", "decisions", f"{said} or train questions only with --train_mode Ra")]


def _batch_findings(tasks: int, settings: TrainingSettings) -> list[Finding]:
    """A run without a full batch has no step."""
    if settings.total_steps:
        return [Finding("ok", "steps", f"{settings.total_steps}, by --total_steps")]
    steps = tasks * settings.total_epochs // settings.batch_size
    if steps:
        said = f"{tasks} tasks x {settings.total_epochs} epochs / batches of {settings.batch_size} = {steps} steps"
        return [Finding("ok", "steps", said)]
    said = f"{tasks} tasks x {settings.total_epochs} epochs do not fill one batch of {settings.batch_size}: "
    return [Finding("fatal", "steps", said + "lower --batch_size or raise --total_epochs")]


def check_learning_rate(settings: TrainingSettings, *, tinker: bool) -> Finding:
    """Says which learning rate the run takes, and whether it is one for what is trained.

    Args:
        settings: May leave the rate open.
        tinker: LoRA weights are trained instead of the whole policy.
    """
    rate = settings.resolved_learning_rate(tinker=tinker)
    full = dataclasses.replace(settings, learning_rate=None).resolved_learning_rate(tinker=False)
    if settings.learning_rate is None:
        return Finding(
            "ok", "learning rate", f"{rate:g}, the default of {'LoRA on Tinker' if tinker else 'full fine-tuning'}"
        )
    if tinker and rate < _LORA_FACTOR * full:
        said = f"--learning_rate {rate:g} is a rate for full fine-tuning; LoRA wants about ten times that: "
        return Finding("warning", "learning rate", f"{said}{rate * _LORA_FACTOR:g} or more, or leave the flag away")
    return Finding("ok", "learning rate", f"{rate:g}, by --learning_rate")


def check_prompt_lengths(settings: TrainingSettings) -> Finding:
    """Counts the prompts that leave no room for a response, with the policy's own tokenizer."""
    room = settings.max_model_len - settings.max_tokens
    if room < 1:
        said = f"--max_tokens {settings.max_tokens} leaves no room for a prompt in --max_model_len "
        return Finding("fatal", "prompt lengths", f"{said}{settings.max_model_len}: raise one or lower the other")
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(settings.model_path, local_files_only=True)
    except (OSError, ValueError) as error:
        said = f"not measured, the tokenizer of {settings.model_path} is not on this machine: {one_line(error)}"
        return Finding("warning", "prompt lengths", said)
    try:
        encoder = ChatEncoder(tokenizer, settings.model_path)
    except UserError as error:
        return Finding("fatal", "prompt lengths", f"--model_path: {one_line(error)}")
    domain = load_domain(settings.domain)
    tasks = read_jsonl(train_file(settings.data), Task, unique_key="cid", report=ReadReport(), quiet=True)
    lengths = [len(encoder.encode(rollout_messages(task.messages, settings.train_mode, domain))[0]) for task in tasks]
    return prompt_length_finding(lengths, room)


def prompt_length_finding(lengths: Sequence[int], room: int) -> Finding:
    """Judges the lengths of all prompts.

    Args:
        lengths: In tokens.
        room: The longest prompt that leaves room for a whole response.
    """
    if not lengths:
        return Finding("warning", "prompt lengths", "no task to measure")
    too_long = sum(length > room for length in lengths)
    measured = f"the longest of {len(lengths)} has {max(lengths)} tokens, {room} fit"
    if not too_long:
        return Finding("ok", "prompt lengths", measured)
    said = (
        f"{too_long} would be truncated ({measured}): the engine refuses or masks them, so their rollouts fail, and "
        "after its retries Trinity leaves the group out; raise --max_model_len or drop these tasks"
    )
    return Finding("fatal" if too_long == len(lengths) else "warning", "prompt lengths", said)
