"""Which sessions say nearly the same: MinHash signatures of their texts, compared where a band of them is equal."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.errors import UserError

# Share of common passages from which on two sessions are near-duplicates. Independent sessions of the sample logs, with
# their small vocabulary, come to 0.75; one of 200 characters in which ten others stand keeps 0.87.
SIMILARITY = 0.85

_PASSAGE = 5  # characters: the same for scripts with and without spaces
_HASHES = 128  # the standard error of the similarity is 0.03
# Two sessions are compared when all hashes of a band are equal: 99% of the pairs with a similarity of 0.85 are.
_BANDS = 16
_BAND = _HASHES // _BANDS

Hashes = NDArray[np.uint32]
Watch = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sessions that say nearly the same, by their rows.

    Attributes:
        first: The one that comes first.
        second: The other.
        similarity: Estimated share of the passages of five characters that they have in common, in [0, 1].
    """

    first: int
    second: int
    similarity: float


class Signatures:
    """The signatures of sessions, 512 bytes each; texts are not kept.

    `datasketch.MinHashLSH` would find the candidates as well, but keeps 5 KB a session in sets.
    """

    def __init__(self, capacity: int) -> None:
        """Makes room.

        Args:
            capacity: Rows that there will be at most; memory is only taken by those that are filled.

        Raises:
            UserError: When datasketch is not installed.
        """
        try:
            from datasketch import MinHash
        except ImportError as error:
            raise UserError(missing("datasketch", "near-duplicates", "--off near_duplicate")) from error
        self._empty = MinHash(num_perm=_HASHES)
        self.rows: Hashes = np.empty((capacity, _HASHES), dtype=np.uint32)

    def fill(self, row: int, session: Session) -> None:
        """Notes the signature of a session."""
        text = plain_text(session)
        ends = range(_PASSAGE, max(len(text), _PASSAGE) + 1)
        minhash = self._empty.copy()
        minhash.update_batch({text[end - _PASSAGE : end].encode() for end in ends})
        self.rows[row] = minhash.hashvalues


def missing(package: str, what_for: str, switch: str) -> str:
    """What to do about a package of the extra that is not installed."""
    return f"{package} is not installed, {what_for} need it; pip install 'learn2ask[curate]', or pass {switch}"


def plain_text(session: Session) -> str:
    """All that is said, in lower case and with single spaces; who says it does not count."""
    return "\n".join(" ".join(message["content"].casefold().split()) for message in session.messages)


def near_pairs(rows: Hashes, *, similarity: float, watch: Watch = iter) -> list[Pair]:
    """Pairs of near-duplicates; of many that are all alike, each comes with the first of them only.

    Args:
        rows: Signatures.
        similarity: From which on two sessions are near-duplicates, in (0, 1].
        watch: Passes on the bands, to show how far it is.

    Returns:
        Sorted by `second`; one session may be near to several before it.
    """
    found: dict[tuple[int, int], float] = {}
    for members in _runs(rows, watch):
        left = members
        while len(left) > 1:
            first, rest = left[0], left[1:]
            similar = _similarity(rows[rest], rows[first])
            near = similar >= similarity
            pairs = zip(rest[near].tolist(), similar[near].tolist(), strict=True)
            found.update({(second, int(first)): share for second, share in pairs})
            left = rest[~near]
    return [Pair(first, second, share) for (second, first), share in sorted(found.items())]


def later_twins(rows: Hashes, *, similarity: float, watch: Watch = iter) -> dict[int, Pair]:
    """What to drop so that no near-duplicates are left: each that is near to an earlier one which stays.

    Args:
        rows: Signatures.
        similarity: From which on two sessions are near-duplicates, in (0, 1].
        watch: Passes on the bands, to show how far it is.

    Returns:
        Row to drop -> the pair that says why.
    """
    dropped: dict[int, Pair] = {}
    kept = np.arange(len(rows))
    while pairs := near_pairs(rows[kept], similarity=similarity, watch=watch):
        gone: set[int] = set()
        for pair in pairs:
            if pair.first not in gone and pair.second not in gone:
                gone.add(pair.second)
                first, second = int(kept[pair.first]), int(kept[pair.second])
                dropped[second] = Pair(first, second, pair.similarity)
        kept = np.delete(kept, sorted(gone))
    return dropped


def crossing_pairs(
    rows: Hashes, on_other_side: NDArray[np.bool_], *, similarity: float, watch: Watch = iter
) -> list[Pair]:
    """Near-duplicates of which one is on the one side and one on the other.

    Args:
        rows: Signatures.
        on_other_side: For each row, whether it is on the other side.
        similarity: From which on two sessions are near-duplicates, in (0, 1].
        watch: Passes on the bands, to show how far it is.

    Returns:
        For each row of the other side that has one, its nearest; `first` is on the one side, `second` on the other.
    """
    nearest: dict[int, Pair] = {}
    for members in _runs(rows, watch):
        here, there = members[~on_other_side[members]], members[on_other_side[members]]
        for second in there.tolist() if len(here) else []:
            similar = _similarity(rows[here], rows[second])
            best = int(similar.argmax())
            share = float(similar[best])
            if share >= similarity and (second not in nearest or share > nearest[second].similarity):
                nearest[second] = Pair(int(here[best]), second, share)
    return [nearest[second] for second in sorted(nearest)]


def _similarity(rows: Hashes, one: Hashes) -> NDArray[np.float64]:
    """The estimated similarity of each row with one."""
    return np.asarray((rows == one).mean(axis=1))


def _runs(rows: Hashes, watch: Watch) -> Iterator[NDArray[np.int64]]:
    """Rows that have all hashes of a band in common, for every band, in rising order."""
    odd = np.random.default_rng(0).integers(1 << 63, size=_BAND, dtype=np.uint64) | np.uint64(1)
    for start in watch(range(0, _HASHES, _BAND)):
        keys = (rows[:, start : start + _BAND].astype(np.uint64) * odd).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        borders = np.flatnonzero(np.diff(keys[order])) + 1
        edges = [0, *borders.tolist(), len(order)]
        for begin, end in pairwise(edges):
            if end - begin > 1:
                yield order[begin:end]
