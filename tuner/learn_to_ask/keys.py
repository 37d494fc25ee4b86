"""A set of keys in few bytes, for files of more records than a set of texts would fit."""

from array import array

_BITS = (1 << 64) - 1


class Keys:
    """Which keys there were, and the how-manieth each was; 14 to 20 bytes a key, whatever its length.

    Of each key its 64-bit hash is kept, so that two keys may be taken for one: among n keys with odds of n² / 2⁶⁵,
    which is 3 in 10⁸ for a million and 3 in 10⁶ for ten millions.
    """

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._places = _empty(1 << 10)  # open addressing: a hash's position + 1 at the first free slot from its own on

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, key: str) -> bool:
        """Takes a key, and says whether it is new."""
        hashed = hash(key) & _BITS
        slot = self._slot(hashed)
        if self._places[slot]:
            return False
        self._hashes.append(hashed)
        self._places[slot] = len(self._hashes)
        if 3 * len(self._hashes) > 2 * len(self._places):
            self._grow()
        return True

    def find(self, key: str) -> int:
        """The how-manieth this key was, counted from 0; -1 for one that was not there."""
        return self._places[self._slot(hash(key) & _BITS)] - 1

    def _slot(self, hashed: int) -> int:
        """Where a hash is, or where it belongs."""
        places, hashes, mask = self._places, self._hashes, len(self._places) - 1
        slot = hashed & mask
        while (place := places[slot]) and hashes[place - 1] != hashed:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        """Doubles the slots."""
        self._places = places = _empty(2 * len(self._places))
        mask = len(places) - 1
        for place, hashed in enumerate(self._hashes, start=1):
            slot = hashed & mask
            while places[slot]:
                slot = (slot + 1) & mask
            places[slot] = place


def _empty(slots: int) -> "array[int]":
    """So many free slots."""
    return array("I", bytes(4)) * slots
