"""What runs on a node: one engine of a pool, which takes and gives many conversations in a message."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol

from tuner.learn_to_ask.engines.base import Engine, Reply, Request, Sampling
from tuner.learn_to_ask.engines.replicas.nodes import Facts, facts_here, lacking
from tuner.learn_to_ask.errors import UserError

CALLS = 2  # of `Replica.exchange` at once: one waits while the replies of the other are on their way
CONCURRENCY = CALLS + 1  # `abandon` and `close` wait for neither
# How long replies are collected for one message: few messages, and still far less than an engine's queue lasts.
_COLLECT_SECONDS = 0.05


class Replicable(Engine, Protocol):
    """An engine that a replica can hold: it asks its requests again after they had nothing, while any is under way."""

    @property
    def places(self) -> int:
        """How many answers it wants under way at a time."""
        ...


MakeEngine = Callable[[int], Replicable]  # loads the engine of the replica with this number, from 1
Message = tuple[list[Reply], list[tuple[str, object]]]  # replies, and the engine's summary so far


class Replica:
    """A Ray actor around one engine, which has a thread of its own.

    Requests belong to a round, one call of the pool's `generate`; those of a former one are dropped.
    """

    def __init__(self) -> None:
        self._engine: Any = None
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._changed = threading.Condition()
        self._round = 0
        self._waiting: deque[Request] = deque()
        self._sampling: Any = None
        self._replies: list[Reply] = []
        self._busy = False
        self._error: Exception | None = None

    def load(self, make_engine: MakeEngine, number: int, expected: Facts, paths: Sequence[str]) -> int:
        """Loads the engine.

        Args:
            make_engine: Loads it.
            number: Of this replica.
            expected: What the other nodes have, see `facts_here`.
            paths: Folders of the model.

        Returns:
            How many answers it wants under way at a time.

        Raises:
            UserError: When this node is unlike the others, or the engine cannot be loaded.
        """
        if reason := lacking(facts_here(), expected, paths):
            raise UserError(f"it {reason}")
        self._engine = self._thread.submit(make_engine, number).result()
        places: int = self._engine.places
        return places

    def exchange(self, round_: int, requests: list[Request], sampling: Sampling) -> Message:
        """Takes conversations at once, and gives replies as soon as there are some.

        Args:
            round_: That the requests belong to.
            requests: New ones.
            sampling: Of the round.

        Returns:
            Replies of this round, none when all is answered or the round is over.

        Raises:
            Exception: That of the engine.
        """
        with self._changed:
            self._begin(round_)
            if round_ == self._round:
                self._waiting.extend(requests)
                self._sampling = sampling
            if self._waiting and not self._busy:
                self._busy = True
                self._thread.submit(self._answer)
            while round_ == self._round and not self._replies and self._busy:
                self._changed.wait()
                self._collect()
            if self._error:
                raise self._error
            replies: list[Reply] = []
            if round_ == self._round:
                replies, self._replies = self._replies, replies
        return replies, self._engine.summary()

    def _collect(self) -> None:
        """Waits for more replies, where there are some."""
        end = time.monotonic() + _COLLECT_SECONDS
        while self._replies and self._busy and (left := end - time.monotonic()) > 0:
            self._changed.wait(left)

    def _begin(self, round_: int) -> None:
        """Drops what belongs to a former round."""
        if round_ > self._round:
            self._round = round_
            self._waiting = deque()  # the engine may still pull from the former one
            self._replies = []
            self._error = None
            self._changed.notify_all()

    def _answer(self) -> None:
        """Has the engine answer until nothing waits; runs in its thread."""
        while True:
            with self._changed:
                if not self._waiting or self._error:
                    self._busy = False
                    self._changed.notify_all()
                    return
                round_, inbox, sampling = self._round, _Inbox(self._waiting), self._sampling
            try:
                self._answer_round(round_, self._engine.generate(inbox, sampling))
            except Exception as error:
                self._error = error

    def _answer_round(self, round_: int, replies: Any) -> None:
        """Passes replies on until they end or the round does."""
        with closing(replies):
            for reply in replies:
                with self._changed:
                    if round_ != self._round:
                        return
                    self._replies.append(reply)
                    self._changed.notify_all()

    def abandon(self, round_: int) -> None:
        """Drops all that is under way before this round."""
        with self._changed:
            self._begin(round_)

    def close(self) -> None:
        """Frees the engine, once it comes to a reply."""
        self.abandon(self._round + 1)
        if self._engine is not None:
            self._thread.submit(self._engine.close).result()


class _Inbox:
    """The requests of an engine: at its end for now, it may hold more later."""

    def __init__(self, waiting: deque[Request]) -> None:
        self._waiting = waiting

    def __iter__(self) -> "_Inbox":
        return self

    def __next__(self) -> Request:
        try:
            return self._waiting.popleft()
        except IndexError:
            raise StopIteration from None
