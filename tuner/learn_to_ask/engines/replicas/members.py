"""The replicas of a pool: started where GPUs are free, counted out when they die, ended in the end."""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.engines.base import Reply, Request
from tuner.learn_to_ask.engines.replicas.actor import CONCURRENCY, MakeEngine, Replica
from tuner.learn_to_ask.engines.replicas.nodes import Facts, JoinedCluster, last_line, one_line
from tuner.learn_to_ask.engines.replicas.plan import Node, Plan
from tuner.learn_to_ask.errors import UserError

_WAIT_SECONDS = 1.0
_LOOK_SECONDS = 5.0  # between two looks for free GPUs
_LAST_SECONDS = 15.0  # for GPUs to come free after a replica's end
_CLOSE_SECONDS = 30.0
_HURRIED_SECONDS = 3.0  # it frees its GPUs in order only when the answer it is working on comes soon
_POLL_SECONDS = 0.1


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """A replica as the driver knows it.

    Attributes:
        number: From 1, in the order in which they were started.
        actor: Its handle.
        node: Where it is.
        places: Answers that it wants under way; 0 while it is loading, and after it has died.
        calls: Messages under way.
        under_way: Key -> request of what it has not answered.
        answers: Texts that it has given.
        prompt_tokens: Read for them.
        completion_tokens: Written.
        told: Of its engine's summary.
        hurried: Whether it was told to drop what it is working on.
        died: Why, `""` while it lives.
    """

    number: int
    actor: Any
    node: Node
    places: int = 0
    calls: list[Any] = field(default_factory=list)
    under_way: dict[int, Request] = field(default_factory=dict)
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    told: list[tuple[str, object]] = field(default_factory=list)
    hurried: bool = False
    died: str = ""

    @property
    def title(self) -> str:
        """What to call it."""
        return f"replica {self.number} on {self.node.name}"

    def took(self, replies: Iterable[Reply]) -> Iterator[Reply]:
        """Counts replies and passes them on."""
        for reply in replies:
            del self.under_way[reply.key]
            self.answers += len(reply.texts)
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens
            yield reply


class Members:
    """The replicas, alive and dead.

    As long as fewer are alive than are wanted, or wherever the GPUs give one more, one is started where GPUs are free:
    those of one that died, or of a node that joins. Where one did not get going, none is started again.

    Attributes:
        all: In the order in which they were started.
    """

    def __init__(
        self,
        make_engine: MakeEngine,
        *,
        cluster: JoinedCluster,
        plan: Plan,
        wanted: int | None,
        expected: Facts,
        paths: Sequence[str],
    ) -> None:
        """Starts those of the plan, see `ReplicaPool`."""
        import ray

        self.all: list[Member] = []
        self._actor: Any = ray.remote(Replica)
        self._load = (make_engine, dict(expected), list(paths))
        self._cluster = cluster
        self._wanted = wanted
        self._size = plan.tensor_parallel_size
        self._loading: dict[Any, Member] = {}
        self._given_up: Counter[str] = Counter()  # node -> places where a replica did not get going
        self._next_look = 0.0
        for node, replicas in zip(plan.nodes, plan.replicas, strict=True):
            for _ in range(replicas):
                self._start(node)

    @property
    def ready(self) -> list[Member]:
        """Those that can be asked."""
        return [member for member in self.all if member.places]

    def _start(self, node: Node) -> None:
        """Has Ray start a replica on a node; it joins once it is loaded."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        number = len(self.all) + 1
        where = NodeAffinitySchedulingStrategy(node.id, soft=False)
        # GPUs of one node are what an actor can ask for by itself; CPUs are never what is short.
        options = {"num_gpus": self._size, "num_cpus": 0, "max_concurrency": CONCURRENCY, "scheduling_strategy": where}
        actor = self._actor.options(**options).remote()
        self.all.append(Member(number=number, actor=actor, node=node))
        make_engine, expected, paths = self._load
        self._loading[actor.load.remote(make_engine, number, expected, paths)] = self.all[-1]

    def wait_for_first(self) -> None:
        """Waits until the first is loaded, and as long again for the others.

        Raises:
            UserError: When none can be loaded.
        """
        started, end = time.monotonic(), None
        bar = progress(itertools.count(), title="loading", total=len(self._loading), unit="replicas")
        try:
            while self._loading and (end is None or time.monotonic() < end):
                for _ in range(self._join_loaded(_WAIT_SECONDS)):
                    next(bar)
                if self.ready and end is None:
                    end = time.monotonic() + (time.monotonic() - started)
        finally:
            bar.close()
        if not self.ready:
            raise UserError(self._why_none())

    def wait_for_any(self) -> None:
        """Waits while all there is are replicas that are loading or can be started.

        Raises:
            UserError: When there are none.
        """
        end = time.monotonic() + _LAST_SECONDS
        while not self.ready:
            self._next_look = 0.0
            self.look()
            if self._loading:
                self._join_loaded(_WAIT_SECONDS)
                end = time.monotonic() + _LAST_SECONDS
            elif time.monotonic() >= end:
                kept = "results so far are kept: put the cause right and pass --resume"
                raise UserError(f"{self._why_none()}; {kept}")
            else:
                time.sleep(_WAIT_SECONDS)

    def look(self) -> None:
        """Every few seconds, lets replicas join and starts others where GPUs are free."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        while self._loading and self._join_loaded(0):
            pass
        alive = Counter(member.node.id for member in self.all if not member.died)
        short = None if self._wanted is None else self._wanted - alive.total()
        for node in self._cluster.nodes() if short is None or short > 0 else ():
            places = min(node.free, node.gpus - alive[node.id] * self._size) // self._size - self._given_up[node.id]
            for _ in range(places if short is None else min(places, short)):
                self._start(node)
                print(f"{self.all[-1].title}: being started, GPUs are free", file=sys.stderr)
                short = None if short is None else short - 1

    def _join_loaded(self, seconds: float) -> int:
        """Lets one join that is loaded, or counts it out when it cannot be; returns how many that were.

        Args:
            seconds: To wait at most.
        """
        import ray

        done, _ = ray.wait(list(self._loading), num_returns=1, timeout=seconds)
        for call in done:
            member = self._loading.pop(call)
            try:
                member.places = ray.get(call)
            except ray.exceptions.RayError as error:
                self._end(member, error)
                print(f"{member.title} cannot be loaded: {member.died}", file=sys.stderr)
        return len(done)

    def lose(self, member: Member, error: Exception) -> list[Request]:
        """Counts one out that died, and gives back what it had under way."""
        self._end(member, error)
        lost = list(member.under_way.values())
        member.under_way.clear()
        print(f"{member.title} died with {len(lost)} conversations under way: {member.died}", file=sys.stderr)
        return lost

    def _end(self, member: Member, error: Exception) -> None:
        """Ends what is left of one."""
        import ray

        member.died, member.places = _reason(error), 0
        if not member.answers:
            self._given_up[member.node.id] += 1
        ray.kill(member.actor)

    def _why_none(self) -> str:
        """Why no replica is left."""
        reasons = Counter(member.died for member in self.all if member.died)
        listed = "; ".join(f"{reason}{f' ({count} times)' if count > 1 else ''}" for reason, count in reasons.items())
        return f"no replica is left of {len(self.all)}: {listed}"

    def close(self) -> None:
        """Ends them, and waits until their GPUs are free."""
        import ray

        alive = [member for member in self.all if not member.died]
        closing = [member.actor.close.remote() for member in alive if member.places]
        if closing:
            seconds = _HURRIED_SECONDS if any(member.hurried for member in alive) else _CLOSE_SECONDS
            ray.wait(closing, num_returns=len(closing), timeout=seconds)
        for member in alive:
            ray.kill(member.actor)
        held = Counter(member.node.id for member in alive)
        end = time.monotonic() + _LAST_SECONDS
        while time.monotonic() < end:
            nodes = self._cluster.nodes()
            if all(node.free >= min(held[node.id] * self._size, node.gpus) for node in nodes if held[node.id]):
                return
            time.sleep(_POLL_SECONDS)


def _reason(error: Exception) -> str:
    """Why a replica died, on one line."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        said = one_line(str(cause).partition("\n")[0])
        return said if isinstance(cause, UserError) else f"{type(cause).__name__}: {said}"
    if isinstance(error, ray.exceptions.RayActorError):
        return "its process or its node is gone"
    return last_line(error)
