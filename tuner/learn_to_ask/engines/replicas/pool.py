"""A pool of replicas as one engine: who is asked what, and what becomes of the conversations of one that dies."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tuner.learn_to_ask.engines.base import Applied, EngineDiedError, Reply, Request, Sampling, as_asked
from tuner.learn_to_ask.engines.replicas.actor import CALLS, MakeEngine
from tuner.learn_to_ask.engines.replicas.members import Member, Members
from tuner.learn_to_ask.engines.replicas.nodes import Facts, JoinedCluster
from tuner.learn_to_ask.engines.replicas.plan import Plan
from tuner.learn_to_ask.errors import UserError

DIED_TWICE = "two replicas died over it"
_WAIT_SECONDS = 1.0


@dataclass(slots=True)
class _Work:
    """What one call of `generate` has to do.

    Attributes:
        requests: Pulled as places come free.
        sampling: For all.
        again: Given back by replicas that died, ahead of new ones.
        died_over: Keys of conversations that were under way at a death.
        ended: Whether there are no more requests.
    """

    requests: Iterator[Request]
    sampling: Sampling
    again: deque[Request] = field(default_factory=deque)
    died_over: set[int] = field(default_factory=set)
    ended: bool = False

    def next(self) -> Request | None:
        """The next to be asked."""
        if self.again:
            return self.again.popleft()
        request = None if self.ended else next(self.requests, None)
        self.ended = request is None
        return request

    def given_back(self, lost: Iterable[Request]) -> Iterator[Reply]:
        """Takes what was under way at a death, and gives the replies to what was so for the second time."""
        for request in lost:
            if request.key in self.died_over:
                yield Reply(request.key, [], error=DIED_TWICE, final=True)
            else:
                self.died_over.add(request.key)
                self.again.append(request)


class ReplicaPool:
    """Answers conversations with several replicas of an engine; this process alone knows which are answered.

    A replica that dies gives back what it had under way, which is asked once more elsewhere.
    """

    def __init__(
        self,
        make_engine: MakeEngine,
        *,
        cluster: JoinedCluster,
        plan: Plan,
        wanted: int | None,
        expected: Facts,
        paths: Sequence[str] = (),
        description: str,
    ) -> None:
        """Starts the replicas, and waits until the first is loaded, and as long again for the others.

        Args:
            make_engine: Runs on the nodes.
            cluster: Left when the pool is closed.
            plan: Where the first replicas go.
            wanted: Replicas; `None` for as many as the GPUs give at any time.
            expected: What every node has.
            paths: Folders of the model.
            description: See `Engine`.

        Raises:
            UserError: When no replica can be loaded.
        """
        self.description = description
        self._cluster = cluster
        self._of_call: dict[Any, Member] = {}
        self._round = 0
        self._members: Members | None = None
        try:
            self._members = Members(
                make_engine, cluster=cluster, plan=plan, wanted=wanted, expected=expected, paths=paths
            )
            self._members.wait_for_first()
        except BaseException:
            self.close()
            raise
        self._all = self._members.all

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies of all replicas as they come.

        A conversation over which two replicas died gets an error reply.

        Raises:
            UserError: When no replica is left, or an engine refuses the settings.
        """
        assert self._members is not None
        work = _Work(iter(requests), sampling)
        self._round += 1
        try:
            while True:
                self._members.look()
                self._deal(work, self._members.ready)
                if self._of_call:
                    yield from self._hear(work, self._members)
                elif work.ended and not work.again:
                    return
                else:
                    self._members.wait_for_any()
        finally:
            self._abandon()

    def applied(self, sampling: Sampling) -> Applied:
        """All of it."""
        return as_asked(sampling)

    def summary(self) -> list[tuple[str, object]]:
        """What the engines tell, added up, and what each replica did."""
        rows: dict[str, Any] = {}
        for member in self._all:
            for label, value in member.told:
                rows[label] = rows.get(label, 0) + value
        for member in self._all:
            tokens = f"{member.prompt_tokens:,} / {member.completion_tokens:,} tokens in / out"
            died = f", died: {member.died}" if member.died else ""
            rows[member.title] = f"{member.answers:,} answers, {tokens}{died}"
        return list(rows.items())

    def close(self) -> None:
        """Ends the replicas, waits until their GPUs are free, and leaves the cluster."""
        members, self._members = self._members, None
        try:
            if members:
                members.close()
        finally:
            self._cluster.close()

    def _deal(self, work: _Work, ready: list[Member]) -> None:
        """Fills the places that are free, the emptiest replica first, and sends what was dealt."""
        waiting = [member for member in ready if len(member.calls) < CALLS]
        room = [max(1, member.places // work.sampling.n) - len(member.under_way) for member in waiting]
        dealt: list[list[Request]] = [[] for _ in waiting]
        while room and (most := max(room)) > 0 and (request := work.next()) is not None:
            place = room.index(most)
            room[place] -= 1
            dealt[place].append(request)
            waiting[place].under_way[request.key] = request
        for member, requests in zip(waiting, dealt, strict=True):
            for batch in (requests, [])[: CALLS - len(member.calls)]:
                if batch or member.under_way:
                    call = member.actor.exchange.remote(self._round, batch, work.sampling)
                    member.calls.append(call)
                    self._of_call[call] = member

    def _hear(self, work: _Work, members: Members) -> Iterator[Reply]:
        """Waits for a message, for a moment.

        Raises:
            UserError: When an engine refuses the settings.
        """
        import ray

        done, _ = ray.wait(list(self._of_call), num_returns=1, timeout=_WAIT_SECONDS)
        for call in done:
            member = self._of_call.pop(call)
            member.calls.remove(call)
            try:
                replies, member.told = ray.get(call)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, UserError) and not isinstance(cause, EngineDiedError):
                    raise cause from None
                yield from self._arrived(member)
                yield from work.given_back(members.lose(member, error))
            else:
                yield from member.took(replies)

    def _arrived(self, member: Member) -> Iterator[Reply]:
        """The replies that came before a replica died; its other messages fail as well."""
        import ray

        for call in member.calls:
            del self._of_call[call]
            with suppress(ray.exceptions.RayError):
                yield from member.took(ray.get(call, timeout=_WAIT_SECONDS)[0])
        member.calls.clear()

    def _abandon(self) -> None:
        """Has replicas drop what nobody waits for any more."""
        for member in self._all:
            if member.calls or member.under_way:
                member.actor.abandon.remote(self._round + 1)
                member.hurried = True
            member.under_way.clear()
            member.calls.clear()
        self._of_call.clear()
