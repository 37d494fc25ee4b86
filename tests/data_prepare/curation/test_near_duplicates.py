"""Near-duplicates by signatures, against the share of common passages counted one by one."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import healthy, session

import tuner.learn_to_ask
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.data_prepare.curation.near_duplicates import (
    SIMILARITY,
    Pair,
    Signatures,
    crossing_pairs,
    later_twins,
    near_pairs,
    plain_text,
)

SAMPLE = Path(tuner.learn_to_ask.__file__).parent / "sample_data"


def rows_of(sessions):
    signatures = Signatures(len(sessions))
    for row, one in enumerate(sessions):
        signatures.fill(row, one)
    return signatures.rows


def common_share(one, other):
    """Slow and exact."""
    first, second = (
        {text[place : place + 5] for place in range(len(text) - 4)} for text in map(plain_text, (one, other))
    )
    return len(first & second) / len(first | second)


def sample_sessions():
    lines = (SAMPLE / "train_origin.jsonl").read_text(encoding="utf-8").splitlines()
    return [Session.model_validate(json.loads(line)) for line in lines]


def changed(one, **change):
    return one.model_copy(update=change)


def test_who_speaks_case_and_spaces_do_not_count():
    assert plain_text(session("p: I  have\na Cough ", "d: ok")) == plain_text(session("d: i have a cough", "p: OK"))


def test_a_copy_and_a_copy_with_a_word_more_are_found_and_how_near_they_are_is_said():
    sessions = sample_sessions()[:60]
    longer = [*sessions[7].messages, {"role": "user", "content": "thank you doctor"}]
    sessions += [changed(sessions[3], session_id="copy"), changed(sessions[7], session_id="longer", messages=longer)]

    pairs = near_pairs(rows_of(sessions), similarity=SIMILARITY)

    assert [(pair.first, pair.second) for pair in pairs] == [(3, 60), (7, 61)]
    assert pairs[0].similarity == 1.0
    assert pairs[1].similarity == pytest.approx(common_share(sessions[7], sessions[61]), abs=0.1)


def test_independent_sessions_of_the_sample_logs_are_no_near_duplicates():
    assert near_pairs(rows_of(sample_sessions()), similarity=SIMILARITY) == []


def test_the_estimate_is_near_the_share_that_is_counted():
    sessions = sample_sessions()[:40]
    rows = rows_of(sessions)

    off = [
        (rows[one] == rows[other]).mean() - common_share(sessions[one], sessions[other])
        for one, other in itertools.combinations(range(40), 2)
    ]

    assert abs(np.mean(off)) < 0.01
    assert np.std(off) < 0.04  # sqrt(p (1 - p) / 128) is at most 0.044


def test_of_many_copies_the_first_is_kept():
    a, b = healthy("a"), healthy("b", what="pain in the left knee when walking upstairs")
    rows = rows_of([b, a, a, b, a])

    assert later_twins(rows, similarity=0.9) == {2: Pair(1, 2, 1.0), 3: Pair(0, 3, 1.0), 4: Pair(1, 4, 1.0)}


def test_what_is_only_near_to_a_dropped_one_stays():
    # 90 of 100 hashes in common from one to the next; the first and the last have only 80
    middle = np.arange(128, dtype=np.uint32)
    first, last = middle.copy(), middle.copy()
    first[:13] += 1000
    last[-13:] += 1000

    dropped = later_twins(np.stack([first, middle, last]), similarity=0.85)

    assert dropped == {1: Pair(0, 1, 115 / 128)}


@given(st.lists(st.integers(0, 5), max_size=12), st.randoms(use_true_random=False))
def test_nothing_near_is_left_and_nothing_else_is_dropped(kinds, rng):
    # Given signatures of six kinds that have nothing in common, of each some copies with up to eight other hashes
    base = np.arange(6 * 128, dtype=np.uint32).reshape(6, 128)
    rows = np.array([base[kind] for kind in kinds], dtype=np.uint32).reshape(-1, 128)
    for row in rows:
        row[rng.sample(range(128), rng.randint(0, 8))] += 10_000

    dropped = later_twins(rows, similarity=0.85)

    kept = [kinds[row] for row in range(len(kinds)) if row not in dropped]
    assert sorted(kept) == sorted(set(kinds))
    assert all(kinds[row] == kinds[pair.first] and pair.first < row == pair.second for row, pair in dropped.items())
    assert all(pair.first not in dropped for pair in dropped.values())


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=10))
def test_a_pair_crosses_when_its_sessions_are_on_different_sides(placed):
    base = np.arange(4 * 128, dtype=np.uint32).reshape(4, 128)
    rows = np.array([base[kind] for kind, _ in placed], dtype=np.uint32).reshape(-1, 128)
    sides = np.array([side for _, side in placed], dtype=bool)

    found = crossing_pairs(rows, sides, similarity=0.9)

    here = {kind for kind, side in placed if not side}
    assert [pair.second for pair in found] == [row for row, (kind, side) in enumerate(placed) if side and kind in here]
    assert all(placed[pair.first] == (placed[pair.second][0], False) for pair in found)


def test_a_session_shorter_than_a_passage_has_a_signature_too():
    rows = rows_of([session("p: 疼"), session("p: 疼"), session("p: 痒")])

    assert list(later_twins(rows, similarity=0.9)) == [1]
