"""Grades rollouts while others are still rolled out: two threads, a queue between them, one end for both."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, SimpleQueue

from tuner.learn_to_ask.core.records import TaskWithRollouts
from tuner.learn_to_ask.engines.select import LOCAL_ENGINES
from tuner.learn_to_ask.errors import BudgetReachedError

# What is under way when one side fails or Ctrl-C is pressed has been paid for: so long it may still be answered.
_GRACE_SECONDS = 5.0

Item = tuple[int, TaskWithRollouts]


class StoppedError(Exception):
    """The other side failed; what this one finished is in its journal."""


class Handover:
    """Rollouts on their way to the grader, each with its index in the test set.

    It holds whatever waits for the grader, so that the slower side never makes the faster one wait with answers that
    are not on the disk yet.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._reached: BudgetReachedError | None = None

    def put(self, index: int, task: TaskWithRollouts) -> None:
        """Hands one over."""
        self._queue.put((index, task))

    def end(self) -> None:
        """Says that there are no more."""
        self._queue.put(None)

    def stop(self) -> None:
        """Has both sides come to an end: they ask nothing new and keep what is answered."""
        self._stopped.set()
        self._queue.put(None)

    def reach_budget(self, reached: BudgetReachedError) -> None:
        """Says that one side has come to the budget of both: no more rollouts; what is there may still be graded."""
        self._reached = reached
        self._queue.put(None)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    @property
    def wants_more(self) -> bool:
        """Whether more rollouts are of any use."""
        return not self.stopped and self._reached is None

    def check(self) -> None:
        """Ends a side that cannot finish.

        Raises:
            BudgetReachedError: After `reach_budget`.
            StoppedError: After `stop`.
        """
        if self.stopped:
            raise StoppedError
        if self._reached:
            raise self._reached

    def batches(self) -> Iterator[Iterator[Item]]:
        """Yields what is there at a time, so that the grader never waits for rollouts while it owes answers.

        An engine that waited for its next request would keep the answers it has until that came.
        """
        while (item := self._queue.get()) is not None:
            yield self._batch(item)

    def _batch(self, item: Item | None) -> Iterator[Item]:
        """An item and all that wait behind it."""
        while item is not None and not self.stopped:
            yield item
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
        self.end()  # for `batches`


def run_both(
    roll: Callable[..., int], grade: Callable[..., int], *, policy_engine: str, grader_engine: str
) -> tuple[int, int]:
    """Rolls out and grades, at the same time where that gains anything.

    Two local models would have to share this machine's memory, and the offline grader has nothing to wait for.

    Args:
        roll: `roll_out`, ready but for `handover`.
        grade: `evaluate`, ready but for `handover` and `when`.
        policy_engine: Name of the engine that rolls out, `""` when that is done.
        grader_engine: Name of the engine that grades.

    Returns:
        The exit codes of both.
    """
    if not policy_engine or grader_engine == "offline":
        return roll(), grade()
    if {policy_engine, grader_engine} <= LOCAL_ENGINES:
        return roll(), grade(when="after the rollouts, as both models need this machine's memory")
    handover = Handover()
    roll = partial(roll, handover=handover)
    grade = partial(grade, handover=handover, when="while the rollouts went on")
    if grader_engine in LOCAL_ENGINES:
        code, rolled = run_together(grade, roll, handover)
        return rolled, code
    return run_together(roll, grade, handover)


def run_together(front: Callable[[], int], back: Callable[[], int], handover: Handover) -> tuple[int, int]:
    """Runs two jobs at the same time; when one fails, the other stops as well.

    Args:
        front: Runs in this thread, which Ctrl-C interrupts; a job with a local model, if there is one.
        back: Runs in a thread of its own.
        handover: What both look at to know when to stop.

    Returns:
        What both return.

    Raises:
        BaseException: What the job that failed first raises.
        BudgetReachedError: When one came to the budget, once the other has come to its end as well.
    """
    ended: SimpleQueue[int | BaseException] = SimpleQueue()

    def run_back() -> None:
        try:
            ended.put(back())
        except BudgetReachedError as error:
            handover.reach_budget(error)
            ended.put(error)
        except BaseException as error:
            ended.put(error)
            handover.stop()

    # A daemon: should it not stop in time, it ends with the process, as after a kill.
    thread = threading.Thread(target=run_back, name="overlapped", daemon=True)
    thread.start()
    try:
        try:
            code = front()
        except StoppedError:
            code = 0  # the other one's error is the one to tell
        except BudgetReachedError as error:
            handover.reach_budget(error)
            ended.get()
            raise
        outcome = ended.get()
    except BaseException:
        handover.stop()
        thread.join(_GRACE_SECONDS)
        raise
    if isinstance(outcome, BaseException):
        raise outcome
    return code, outcome
