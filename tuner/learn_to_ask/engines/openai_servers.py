"""Which of several servers of one model gets the next request: the least loaded of those that answer."""

import asyncio
import sys
from collections.abc import Container, Sequence
from dataclasses import dataclass

from tuner.learn_to_ask.engines.openai_address import Address
from tuner.learn_to_ask.engines.openai_reply import AttemptError

_FAILURES = 3  # in a row, after which a server is left out; one that cannot be reached is at once
_LONGEST_REST = 60.0


@dataclass(slots=True, kw_only=True, eq=False)
class Server:
    """A server and how it fares.

    Attributes:
        address: Where it is.
        running: Requests that it has.
        failures: In a row.
        rests: How often in a row it was left out for a while.
        rests_until: Until when, by the loop's clock.
    """

    address: Address
    running: int = 0
    failures: int = 0
    rests: int = 0
    rests_until: float = 0.0


class Servers:
    """Hands servers out and takes them back, on one event loop.

    A server that fails rests, and no request goes there as long as others are awake. Then it gets one request: when
    that is answered it counts as any other, else it rests twice as long.
    """

    def __init__(self, addresses: Sequence[Address], *, places: int | None, first_rest: float) -> None:
        """All are awake.

        Args:
            addresses: Where they are.
            places: How many requests each has at once, `None` for as many as come.
            first_rest: Seconds, twice as many each time.
        """
        self.all = [Server(address=address) for address in addresses]
        self._places = sys.maxsize if places is None else places
        self._first_rest = first_rest
        self._waiting: list[asyncio.Future[None]] = []

    def others(self, asked: Container[Server]) -> bool:
        """Whether a server is awake that is none of these."""
        return any(server not in asked for server in self._awake())

    async def take(self, asked: Container[Server]) -> Server:
        """The server to ask, which counts as running one more; waits until one has a place.

        Args:
            asked: Those that had this request before: only asked again when there is no other.
        """
        loop = asyncio.get_running_loop()
        while True:
            awake = self._awake() or self.all
            wanted = [server for server in awake if server not in asked] or awake
            server = min(wanted, key=lambda server: server.running)
            if server.running < self._places:
                if server.rests and server.rests_until <= loop.time():  # one request tells whether it is well again
                    self._rest(server)
                server.running += 1
                return server
            place = loop.create_future()
            self._waiting.append(place)
            await place

    def give_back(self, server: Server) -> None:
        """Takes a place back."""
        server.running -= 1
        self._wake()

    def note(self, server: Server, error: AttemptError | None) -> str:
        """Notes how a server has fared; what changes for it from here on, in words, `""` for nothing."""
        if len(self.all) == 1:
            return ""
        now, was_out = asyncio.get_running_loop().time(), server.rests > 0
        if error is None or error.trouble in ("answer", "request"):
            server.failures, server.rests, server.rests_until = 0, 0, 0.0
            self._wake()
            return "answers again" if was_out else ""
        server.failures += 1
        lasting = error.trouble == "unreachable" or error.wait or server.failures >= _FAILURES
        if not lasting or server.rests_until > now:
            return ""
        self._rest(server, at_least=error.wait)
        return "" if was_out else "left out until it answers again"

    def _awake(self) -> list[Server]:
        """Those that do not rest."""
        now = asyncio.get_running_loop().time()
        return [server for server in self.all if server.rests_until <= now]

    def _rest(self, server: Server, *, at_least: float = 0.0) -> None:
        """Leaves a server out for a while."""
        loop = asyncio.get_running_loop()
        seconds = max(at_least, min(_LONGEST_REST, self._first_rest * 2 ** min(server.rests, 32)))
        server.rests += 1
        server.rests_until = loop.time() + seconds
        loop.call_at(server.rests_until, self._wake)

    def _wake(self) -> None:
        """Has the requests that wait look again, those that have waited longest first."""
        waiting, self._waiting = self._waiting, []
        for place in waiting:
            if not place.done():
                place.set_result(None)
