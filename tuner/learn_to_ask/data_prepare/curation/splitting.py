"""Which side of a split each session goes to: strata of diagnosis and length, near-duplicates together, seeded."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.learn_to_ask.core.records import Session

# Messages of a session: up to 6, up to 12, ...
_LENGTHS = (6, 12, 24)


@dataclass(frozen=True, slots=True, order=True)
class Stratum:
    """Sessions that are alike enough to stand for each other.

    Attributes:
        diagnosis: As text.
        length: How many of the borders 6, 12 and 24 messages the session is beyond.
    """

    diagnosis: str
    length: int


def stratum_of(session: Session) -> Stratum:
    """Where a session belongs."""
    return Stratum(str(session.diagn), sum(len(session.messages) > border for border in _LENGTHS))


def groups_of(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Joins whatever a chain of pairs connects.

    Args:
        count: How many sessions there are.
        pairs: Positions of two that must stay together.

    Returns:
        For each session the position of the first in its group.
    """
    parents = list(range(count))

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = parents[parents[position]]
            position = parents[position]
        return position

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parents[second] = first
    return [root(position) for position in range(count)]


def choose_test(strata: Sequence[Stratum], groups: Sequence[int], *, test_share: float, seed: int) -> list[bool]:
    """Draws the test set.

    A group is drawn whole and counts for the stratum of its first session. Strata take turns in order, and what one of
    them is owed after rounding goes to the next, so that rare diagnoses come to their share together.

    Args:
        strata: Of the sessions.
        groups: For each session the position of the first in its group.
        test_share: In (0, 1).
        seed: Same seed, same split.

    Returns:
        For each session whether it is in the test set.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    by_stratum: defaultdict[Stratum, list[int]] = defaultdict(list)
    for group in members:
        by_stratum[strata[group]].append(group)
    rng = random.Random(seed)
    in_test = [False] * len(strata)
    owed = 0.0
    for _, candidates in sorted(by_stratum.items()):
        owed += test_share * sum(len(members[group]) for group in candidates)
        rng.shuffle(candidates)
        for group in candidates:
            size = len(members[group])
            if owed >= size / 2:
                owed -= size
                for position in members[group]:
                    in_test[position] = True
    return in_test
