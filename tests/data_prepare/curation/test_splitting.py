"""How a test set is drawn: groups stay whole, every stratum gets its share, the seed decides."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from sessions import session

from tuner.learn_to_ask.data_prepare.curation.splitting import Stratum, choose_test, groups_of, stratum_of

COLD, FLU = Stratum("Cold", 0), Stratum("Flu", 1)


def alone(strata):
    return list(range(len(strata)))


def test_a_stratum_is_the_diagnosis_and_how_long_a_session_is():
    assert stratum_of(session(*["p: hi"] * 6, diagn="Flu")) == Stratum("Flu", 0)
    assert stratum_of(session(*["p: hi"] * 7, diagn="Flu")) == Stratum("Flu", 1)
    assert stratum_of(session(*["p: hi"] * 25, diagn=None)) == Stratum("None", 3)


def test_a_chain_of_pairs_is_one_group():
    assert groups_of(6, [(4, 2), (2, 0), (1, 5)]) == [0, 1, 0, 3, 0, 1]


def test_every_stratum_gives_its_share():
    strata = [COLD] * 40 + [FLU] * 20

    chosen = choose_test(strata, alone(strata), test_share=0.2, seed=0)

    counts = Counter(stratum for stratum, tested in zip(strata, chosen, strict=True) if tested)
    assert counts == {COLD: 8, FLU: 4}


def test_strata_of_one_come_to_their_share_together():
    strata = [Stratum(f"rare {number}", 0) for number in range(50)]

    assert sum(choose_test(strata, alone(strata), test_share=0.2, seed=0)) == 10


def test_the_seed_decides():
    strata = [COLD] * 100

    draws = [choose_test(strata, alone(strata), test_share=0.2, seed=seed) for seed in (0, 0, 1)]

    assert draws[0] == draws[1] != draws[2]


_SESSIONS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=60)


@given(_SESSIONS, st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 5), st.data())
def test_groups_stay_whole_and_the_share_is_kept_within_a_group(sessions, share, seed, data):
    strata = [Stratum(*each) for each in sessions]
    positions = st.integers(0, len(strata) - 1)
    groups = groups_of(len(strata), data.draw(st.lists(st.tuples(positions, positions), max_size=10)))

    chosen = choose_test(strata, groups, test_share=share, seed=seed)

    assert all(len({chosen[other] for other in positions_of(groups, group)}) == 1 for group in set(groups))
    largest = max(Counter(groups).values())
    assert abs(sum(chosen) - share * len(strata)) <= max(1, largest)


def positions_of(groups, group):
    return [position for position, other in enumerate(groups) if other == group]
