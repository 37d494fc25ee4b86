"""Step 3: rolls a policy out on the test set, grades every rollout and averages (spec section 8)."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary, progress
from tuner.learn_to_ask.data_prepare.resumable import resumable
from tuner.learn_to_ask.engines.base import Engine, Request, Sampling
from tuner.learn_to_ask.engines.retrying import Prices, Usage, ask
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.grading import parse_grade
from tuner.learn_to_ask.journal import file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input
from tuner.learn_to_ask.metrics import METRICS, ScoredRollout, compute_metrics, scored_rollouts
from tuner.learn_to_ask.prompt import grading_messages, reward_prompt_med, rollout_messages, rollout_prompt
from tuner.learn_to_ask.records import Grade, GradedTask, Task, TaskWithRollouts
from tuner.learn_to_ask.responses import strip_reasoning
from tuner.learn_to_ask.reward import Scores, TrainMode, grade, needs_grader

ROLLOUT_SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=512, repetition_penalty=1.2)
GRADER_SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_tokens=1024)


def roll_out(
    *,
    test_file: Path,
    rollout_file: Path,
    make_engine: Callable[[], Engine],
    prices: Prices | None,
    sampling: Sampling,
    train_mode: TrainMode,
    max_retries: int,
    max_failures: float,
    strict: bool,
    resume: bool,
    overwrite: bool,
) -> int:
    """Writes `sampling.n` rollouts for every task of the test set.

    Args:
        test_file: Tasks.
        rollout_file: `TaskWithRollouts`, in input order, once all are done; kept if complete on resume.
        make_engine: Loads the policy, called only when there is work for it.
        prices: Of the policy, for the cost in the summary.
        sampling: How to sample.
        train_mode: Which system prompt the policy gets.
        max_retries: Fresh tries after an error of the engine; then the task is left out.
        max_failures: Share of tasks left out that is still a success.
        strict: A bad line is an error instead of skipped.
        resume: Continue an unfinished run.
        overwrite: Replace finished output, drop an unfinished run.

    Returns:
        The exit code.
    """
    started = time.monotonic()
    require_input(test_file, "--test_file_path")
    if resume and rollout_file.exists():
        print(f"{rollout_file}: already complete")
        return EXIT_DONE
    check_output(rollout_file, "--rollout_file_path", overwrite=overwrite)
    report, usage = ReadReport(), Usage()
    waiting: dict[int, Task] = {}
    count = 0
    total = _count_lines(test_file)
    with resumable(
        rollout_file,
        make_engine,
        depends_on={
            "input": file_digest(test_file),
            "sampling": str(sampling),
            "prompt": text_digest(rollout_prompt(train_mode)),
        },
        resume=resume,
        overwrite=overwrite,
    ) as (engine, journal):

        def requests() -> Iterator[Request]:
            nonlocal count
            for task in read_jsonl(test_file, Task, unique_key="cid", report=report, strict=strict):
                index, count = count, count + 1
                if not journal.done(index):
                    waiting[index] = task
                    yield Request(index, rollout_messages(task.messages, train_mode))

        answers = ask(
            engine,
            requests(),
            sampling=sampling,
            parse=lambda texts: [strip_reasoning(text) for text in texts],
            max_tries=1 + max_retries,
            usage=usage,
        )
        for answer in progress(answers, title="rolling out", total=total - journal.resumed, unit="samples"):
            task = waiting.pop(answer.key)
            if answer.value is not None:
                journal.append(
                    answer.key, TaskWithRollouts(**task.model_dump(), rollouts=answer.value, policy=engine.description)
                )
        if not report.good:
            raise UserError(f"--test_file_path {test_file}: holds no usable task; the lines above say why")
        written = journal.finish(count)

    print_summary(
        f"rolled out: {rollout_file}",
        [
            ("samples", written),
            *((f"skipped: {reason}", lines) for reason, lines in sorted(report.bad.items())),
            *([("resumed", journal.resumed)] if journal.resumed else []),
            ("rollouts a sample", sampling.n),
            *usage.rows(prices),
            *engine.summary(),
            ("policy", engine.description),
        ],
        started=started,
    )
    return EXIT_FAILURES if usage.failed.total() > max_failures * count else EXIT_DONE


def evaluate(
    *,
    rollout_file: Path,
    eval_file: Path,
    make_engine: Callable[[], Engine],
    prices: Prices | None,
    max_retries: int,
    max_failures: float,
    resume: bool,
    overwrite: bool,
) -> int:
    """Grades every rollout, writes the evaluation file and prints the metrics.

    Only rollouts that ask where asking is right cost a call of the grader.

    Args:
        rollout_file: `TaskWithRollouts` of `roll_out`.
        eval_file: `GradedTask`, in input order, once all are done.
        make_engine: Loads the grader, called only when there is work for it.
        prices: Of the grader, for the cost in the summary.
        max_retries: Fresh tries after a reply without scores; then the rollout is left out of the averages.
        max_failures: Share of rollouts left out that is still a success.
        resume: Continue an unfinished run.
        overwrite: Replace finished output, drop an unfinished run.

    Returns:
        The exit code.
    """
    started = time.monotonic()
    require_input(rollout_file, "--rollout_file_path")
    if resume and eval_file.exists():
        print(f"{eval_file}: already complete")
        print_metrics(eval_file)
        return EXIT_DONE
    check_output(eval_file, "--eval_file_path", overwrite=overwrite)
    usage = Usage()
    waiting: dict[int, _Grading] = {}
    keys: dict[int, tuple[int, int]] = {}
    count = asked = rollouts = 0
    total = _count_lines(rollout_file)
    with resumable(
        eval_file,
        make_engine,
        depends_on={
            "input": file_digest(rollout_file),
            "sampling": str(GRADER_SAMPLING),
            "prompt": text_digest(reward_prompt_med),
        },
        resume=resume,
        overwrite=overwrite,
    ) as (engine, journal):

        def requests() -> Iterator[Request]:
            nonlocal count, asked, rollouts
            tasks = read_jsonl(rollout_file, TaskWithRollouts, unique_key="cid", report=ReadReport(), strict=True)
            for task in progress(tasks, title="grading", total=total, unit="samples"):
                index, count = count, count + 1
                rollouts += len(task.rollouts)
                if journal.done(index):
                    continue
                grading = _Grading(task)
                if grading.finished:
                    journal.append(index, grading.graded_task(engine.description))
                    continue
                waiting[index] = grading
                for position in sorted(grading.open_positions):
                    keys[asked] = (index, position)
                    yield Request(asked, grading_messages(task.messages, task.rollouts[position], task.info_truth))
                    asked += 1

        answers = ask(
            engine,
            requests(),
            sampling=GRADER_SAMPLING,
            parse=lambda texts: parse_grade(texts[0]),
            max_tries=1 + max_retries,
            usage=usage,
        )
        for answer in answers:
            index, position = keys.pop(answer.key)
            grading = waiting[index]
            grading.set_scores(position, answer.value)
            if grading.finished:
                journal.append(index, waiting.pop(index).graded_task(engine.description), failed=grading.failed)
        journal.finish(count)

    print_summary(
        f"graded: {eval_file}",
        [
            ("samples", count),
            *([("resumed", journal.resumed)] if journal.resumed else []),
            *usage.rows(prices),
            *engine.summary(),
            ("grader", engine.description),
        ],
        started=started,
    )
    print_metrics(eval_file)
    return EXIT_FAILURES if journal.failed > max_failures * rollouts else EXIT_DONE


class _Grading:
    """A task on its way to its grades."""

    def __init__(self, task: TaskWithRollouts) -> None:
        self._task = task
        self._scores: dict[int, Scores | None] = {}
        self.open_positions = {
            position for position, rollout in enumerate(task.rollouts) if needs_grader(rollout, task.decision_truth)
        }

    @property
    def finished(self) -> bool:
        """Whether no grader has to be asked any more."""
        return not self.open_positions

    @property
    def failed(self) -> int:
        """How many rollouts the grader gave no readable scores."""
        return sum(scores is None for scores in self._scores.values())

    def set_scores(self, position: int, scores: Scores | None) -> None:
        """Takes the grader's scores of one rollout; `None` when grading failed."""
        self.open_positions.remove(position)
        self._scores[position] = scores

    def graded_task(self, grader: str) -> GradedTask:
        """The line of the evaluation file, with the grader's name."""
        grades: list[Grade] = [
            grade(rollout, self._task.decision_truth, self._scores.get(position))
            for position, rollout in enumerate(self._task.rollouts)
        ]
        return GradedTask(**self._task.model_dump(), grades=grades, grader=grader)


def read_evaluation(eval_file: Path) -> list[ScoredRollout]:
    """All (sample, rollout) pairs of an evaluation file that have finite scores.

    Raises:
        UserError: For a line that is no evaluation record.
    """
    records = read_jsonl(eval_file, GradedTask, unique_key="cid", report=ReadReport(), strict=True)
    return [rollout for record in records for rollout in scored_rollouts(record)]


def print_metrics(eval_file: Path) -> None:
    """Prints the metrics of an evaluation file as the published table lists them."""
    metrics = compute_metrics(read_evaluation(eval_file))
    width = max(len(metric.title) for metric in METRICS.values())
    for key, metric in METRICS.items():
        value = metrics[key]
        print(f"  {metric.title:<{width}}  {'n/a' if value is None else f'{value:.3f}'}")


def _count_lines(path: Path) -> int:
    """Number of lines, for progress bars."""
    with path.open("rb") as file:
        return sum(1 for _ in file)
