"""The second half of step 3: grades rollouts and prints the metrics (spec section 8)."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, progress
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.grading import parse_grade
from tuner.learn_to_ask.core.records import Grade, GradedTask, Regrade, TaskWithRollouts
from tuner.learn_to_ask.core.reward import Scores, grade, needs_grader
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.job import JobSettings, Left, is_complete, open_job
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.metrics import METRICS, compute_metrics, scored_rollouts
from tuner.learn_to_ask.evaluation.overlap import Handover, Item
from tuner.learn_to_ask.evaluation.rollout_files import count_tasks, read_matching
from tuner.learn_to_ask.journal import Journal, file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, require_input
from tuner.learn_to_ask.prompt import grading_messages, reward_prompt
from tuner.learn_to_ask.shards import Shard, check_same_shard, note_shard

GRADER_SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_tokens=1024)
# The published table was graded with the policy's own sampling.
PUBLISHED_GRADER_SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=512, repetition_penalty=1.2)


def evaluate(
    *,
    test_file: Path,
    rollout_file: Path,
    eval_file: Path,
    settings: JobSettings,
    sampling: Sampling = GRADER_SAMPLING,
    domain: Domain,
    grade_repeat: int = 1,
    shard: Shard | None = None,
    handover: Handover | None = None,
    when: str = "after the rollouts",
) -> int:
    """Grades every rollout, writes the evaluation file and prints the metrics.

    Only rollouts that ask where asking is right cost a call of the grader; one whose grading fails is left out of the
    averages. One long function, because requests and answers share what is under way.

    Args:
        test_file: Tasks that the rollouts are of; their order is that of the evaluation file.
        rollout_file: `TaskWithRollouts` of `roll_out`.
        eval_file: `GradedTask`, in input order, once all are done.
        settings: Of the grader; failures are counted by grading.
        sampling: Of the grader.
        domain: Its texts and its stop token.
        grade_repeat: How often the grader is asked about each rollout, independently. The first answer is the grade,
            the others are its `regrades`.
        shard: Of the sessions, as the rollouts are; all without.
        handover: Where the rollouts come from when they are not all there yet, instead of the rollout file.
        when: What the summary says of that.

    Returns:
        The exit code.

    Raises:
        BudgetReachedError: When the rest would cost too much, also at the other end of the handover.
        StoppedError: When the policy at the other end of the handover has failed.
        UserError: When the rollouts are not those of the test set, or an unfinished run graded others.
    """
    require_input(test_file, "--test_file_path")
    if not handover and not (shard and rollout_file.is_file()):  # a shard may be empty
        require_input(rollout_file, "--rollout_file_path")
    if settings.resume:
        check_same_shard(eval_file, "--eval_file_path", shard)
    if is_complete(eval_file, "--eval_file_path", settings):
        print_metrics(eval_file, test_file, shard)
        return EXIT_DONE
    waiting: dict[int, Grading] = {}
    keys: dict[int, tuple[int, int, int]] = {}
    last = samples = new = asked = rollouts = 0
    ticks = progress(itertools.count(), title="grading", total=count_lines(test_file), unit="samples")
    depends_on = {
        "input": file_digest(test_file),
        "sampling": str(sampling),
        "prompt": text_digest(reward_prompt(domain)),
        "grade_repeat": str(grade_repeat),
        **(shard.setting if shard else {}),
    }

    def left() -> Left:
        tasks = count_tasks(test_file, shard)
        undone = tasks - job.journal.results
        return Left(f"{undone:,} of {tasks:,} samples", undone * asked / max(new, 1))

    with open_job(eval_file, settings, depends_on=depends_on, left=left) as job:

        def requests(items: Iterable[Item]) -> Iterator[Request]:
            nonlocal last, samples, new, asked, rollouts
            for index, task in items:
                next(ticks)
                last, samples, rollouts = max(last, index), samples + 1, rollouts + len(task.rollouts)
                if job.journal.done(index):
                    _check_graded(job.journal, index, task)
                    continue
                _check_domain(task, domain)
                new += 1
                grading = Grading(task, grade_repeat)
                if grading.finished:
                    job.journal.append(index, grading.graded_task(job.engine.description))
                    continue
                if not job.stopped:
                    waiting[index] = grading
                for position, round_ in sorted(grading.open):
                    if not job.stopped:
                        keys[asked] = (index, position, round_)
                    yield Request(
                        asked, grading_messages(task.messages, task.rollouts[position], task.info_truth, domain)
                    )
                    asked += 1

        for items in handover.batches() if handover else [_items(test_file, rollout_file, shard)]:
            for answer in job.ask(requests(items), sampling=sampling, parse=lambda texts: parse_grade(texts[0])):
                index, position, round_ = keys.pop(answer.key)
                waiting[index].set_scores(position, round_, answer.value)
                if (grading := waiting[index]).finished:
                    done = waiting.pop(index).graded_task(job.engine.description)
                    job.journal.append(index, done, failed=grading.failed)
        ticks.close()
        if handover:
            handover.check()
        job.check_not_all_failed(of=asked)
        _note_shard(job.journal, test_file, shard)
        job.journal.finish(last + 1, GradedTask)

    rows = [("samples", samples), *([("grades a rollout", grade_repeat)] if grade_repeat > 1 else [])]
    job.print_summary(f"graded: {eval_file}", rows, role="grader", last=[("graded", when)])
    print_metrics(eval_file, test_file, shard)
    return job.exit_code(failed=job.journal.failed, of=rollouts * grade_repeat)


def _items(test_file: Path, rollout_file: Path, shard: Shard | None) -> Iterator[Item]:
    """The rollouts of a finished file with their index in the test set."""
    matching = read_matching(test_file, rollout_file, TaskWithRollouts, shard)
    return ((index, task) for index, _, task in matching)


def _note_shard(journal: Journal, test_file: Path, shard: Shard | None) -> None:
    """Notes which shard was graded, and how many of its tasks are left out."""
    left_out = count_tasks(test_file, shard) - journal.results if shard else 0
    note_shard(journal, shard, GradedTask, left_out=left_out)


def _check_graded(journal: Journal, index: int, task: TaskWithRollouts) -> None:
    """Compares rollouts with those that an unfinished run has graded.

    Raises:
        UserError: When they differ.
    """
    if journal.record(index)["rollouts"] != task.rollouts:
        raise UserError(
            f"{journal.path}: cannot resume, it holds grades of other rollouts of cid {task.cid!r}; pass --overwrite "
            "to start again"
        )


def _check_domain(task: TaskWithRollouts, domain: Domain) -> None:
    """Makes sure that rollouts are graded by the texts of the domain they were made with.

    Raises:
        UserError: When they are of another.
    """
    if task.domain != domain.of_record:
        raise UserError(
            f"--domain {domain.name}: the rollouts of cid {task.cid!r} are of domain {task.domain.name}, or its stop "
            "token has changed since; name the domain they were made with"
        )


class Grading:
    """A task on its way to its grades.

    Attributes:
        open: (position, round) of every grading that is still to come, both from 0.
    """

    def __init__(self, task: TaskWithRollouts, repeat: int) -> None:
        self._task = task
        self._repeat = repeat
        self._scores: dict[tuple[int, int], Scores | None] = {}
        self._asked = [
            position
            for position, rollout in enumerate(task.rollouts)
            if needs_grader(rollout, task.decision_truth, task.domain.stop_token)
        ]
        self.open = set(itertools.product(self._asked, range(repeat)))

    @property
    def finished(self) -> bool:
        """Whether no grader has to be asked any more."""
        return not self.open

    @property
    def failed(self) -> int:
        """How often the grader gave no readable scores."""
        return sum(scores is None for scores in self._scores.values())

    def set_scores(self, position: int, round_: int, scores: Scores | None) -> None:
        """Takes the grader's scores of one rollout; `None` when grading failed."""
        self.open.remove((position, round_))
        self._scores[position, round_] = scores

    def graded_task(self, grader: str) -> GradedTask:
        """The line of the evaluation file, with the grader's name."""
        grades: list[Grade] = [
            grade(rollout, self._task.decision_truth, self._scores.get((position, 0)), self._task.domain.stop_token)
            for position, rollout in enumerate(self._task.rollouts)
        ]
        return GradedTask(**self._task.model_dump(), grades=grades, grader=grader, regrades=self._regrades())

    def _regrades(self) -> list[list[Regrade]]:
        """What the grader said beyond the first time, for each rollout."""
        if self._repeat == 1:
            return []
        return [
            [_regrade(self._scores[position, round_]) for round_ in range(1, self._repeat)]
            if position in self._asked
            else []
            for position in range(len(self._task.rollouts))
        ]


def _regrade(scores: Scores | None) -> Regrade:
    """Scores as the evaluation file holds them; open ones after a failure."""
    return Regrade(**asdict(scores)) if scores else Regrade(format_score=None, content_score=None)


def print_metrics(eval_file: Path, test_file: Path, shard: Shard | None = None) -> None:
    """Prints the metrics of an evaluation file as the published table lists them, and over how much of the test set."""
    graded = 0

    def records() -> Iterator[GradedTask]:
        nonlocal graded
        for record in read_jsonl(eval_file, GradedTask, unique_key="cid", report=ReadReport(), strict=True):
            graded += 1
            yield record

    metrics = compute_metrics(rollout for record in records() for rollout in scored_rollouts(record))
    tasks = count_tasks(test_file, shard)
    if graded < tasks:
        print(f"  over {graded} of {tasks} samples")
    width = max(len(metric.title) for metric in METRICS.values())
    for key, metric in METRICS.items():
        value = metrics[key]
        print(f"  {metric.title:<{width}}  {'n/a' if value is None else f'{value:.3f}'}")
