"""Replicas on a real Ray cluster of fake nodes, each around an engine with a known delay: who is asked, who is lost."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import count, islice

import pytest
from delay_engine import POISON, REFUSED, DelayEngine, only_first, refuse
from fake_cluster import fake_cluster

from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.replicas.nodes import JoinedCluster, facts_here
from tuner.learn_to_ask.engines.replicas.plan import plan_replicas
from tuner.learn_to_ask.engines.replicas.pool import DIED_TWICE, ReplicaPool
from tuner.learn_to_ask.errors import UserError

pytestmark = pytest.mark.slow

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8)
SLOTS = 4
PLACES = 2 * SLOTS


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two GPUs."""
    with fake_cluster(2, 2) as running:
        yield running


@pytest.fixture
def start(cluster, tmp_path):
    """Starts a pool whose engines note what they are asked in `tmp_path`; it is closed after the test."""
    pools = []

    def start_pool(*, replicas=None, seconds=0.05, gpus=1, make_engine=None) -> ReplicaPool:
        joined = JoinedCluster(cluster.address, setting="--ray_address")
        plan = plan_replicas(
            joined.nodes(), wanted=replicas, tensor_parallel_size=gpus, fitting=lambda gpus: gpus, flag="--replicas"
        )
        make_engine = make_engine or partial(DelayEngine, seconds=seconds, slots=SLOTS, log=tmp_path)
        pool = ReplicaPool(
            make_engine, cluster=joined, plan=plan, wanted=replicas, expected=facts_here(), description="delay:model"
        )
        pools.append(pool)
        return pool

    yield start_pool
    for pool in pools:
        pool.close()


def conversations(number: int, *, first: int = 0, odd: dict[int, str] | None = None) -> Iterator[Request]:
    for key in range(first, first + number):
        yield Request(key, [{"role": "user", "content": (odd or {}).get(key, f"message {key}")}])


def process_of(folder, replica: int) -> int:
    return int((folder / f"{replica}.log").read_text().splitlines()[0])


def asked(folder) -> dict[int, list[int]]:
    """Replica -> the keys that it was asked."""
    return {int(log.stem): [int(line) for line in log.read_text().splitlines()[1:]] for log in folder.glob("*.log")}


def test_every_conversation_is_answered_once_by_whichever_replica_has_room(start, tmp_path):
    pool = start()

    replies = list(pool.generate(conversations(400), SAMPLING))

    assert sorted(reply.key for reply in replies) == list(range(400))
    assert all(reply.texts == [f"message {reply.key}"] for reply in replies)
    shares = {replica: len(keys) for replica, keys in asked(tmp_path).items()}
    assert sum(shares.values()) == 400
    assert len(shares) == 4
    assert min(shares.values()) > 50  # 100 each, but for how the machine deals out its time


def test_the_summary_says_what_each_replica_did_and_adds_up_what_the_engines_tell(start):
    pool = start(replicas=2)

    list(pool.generate(conversations(40), Sampling(temperature=0.0, top_p=1.0, max_tokens=8, n=3)))

    summary = dict(pool.summary())
    assert summary.pop("prompts shortened") == 2  # each engine says 1
    assert len(summary) == 2
    told = [said.replace(",", "").split() for said in summary.values()]
    assert sum(int(words[0]) for words in told) == 120
    assert sum(int(words[2]) for words in told) == 400  # 10 tokens of a prompt each
    assert sum(int(words[4]) for words in told) == 120
    assert all(title.startswith(f"replica {number} on 127.0.0.1") for number, title in enumerate(summary, start=1))


def test_no_more_of_the_input_is_in_memory_than_the_replicas_have_places(start):
    pool = start(replicas=3)
    pulled = answered = 0
    most = 0

    def counted():
        nonlocal pulled, most
        for request in conversations(500):
            pulled += 1
            most = max(most, pulled - answered)
            yield request

    for _ in pool.generate(counted(), SAMPLING):
        answered += 1

    assert (pulled, answered) == (500, 500)
    assert most <= 3 * PLACES + 1


def test_few_conversations_are_spread_over_all_replicas(start, tmp_path):
    pool = start()

    list(pool.generate(conversations(8), SAMPLING))

    assert {replica: len(keys) for replica, keys in asked(tmp_path).items()} == {1: 2, 2: 2, 3: 2, 4: 2}


def test_a_killed_replica_costs_no_answer_and_only_what_it_had_under_way_is_asked_again(start, tmp_path, capsys):
    pool = start(seconds=0.2)
    replies = pool.generate(conversations(300), SAMPLING)
    first = list(islice(replies, 60))

    os.kill(process_of(tmp_path, 2), signal.SIGKILL)
    keys = [reply.key for reply in [*first, *replies]]

    assert sorted(keys) == list(range(300))
    times = Counter(key for keys in asked(tmp_path).values() for key in keys)
    twice = {key for key, number in times.items() if number == 2}
    assert set(times.values()) <= {1, 2}
    assert len(twice) <= PLACES  # none, where it was killed between two messages
    assert twice <= set(asked(tmp_path)[2])
    assert "replica 2 on 127.0.0.1" in capsys.readouterr().err
    (told,) = [said for title, said in pool.summary() if title.startswith("replica 2 on")]
    assert "died: its process" in str(told)


def test_a_conversation_that_kills_is_asked_twice_and_then_given_up(start, tmp_path):
    pool = start(seconds=0.2)

    replies = {reply.key: reply for reply in pool.generate(conversations(300, odd={20: POISON}), SAMPLING)}

    assert sorted(replies) == list(range(300))
    assert (replies[20].texts, replies[20].error, replies[20].final) == ([], DIED_TWICE, True)
    readers = [replica for replica, keys in asked(tmp_path).items() if 20 in keys]
    assert len(readers) == 2
    # what shared a replica with it both times has the same fate; the others are answered
    given_up = {key for key, reply in replies.items() if reply.error}
    assert len(given_up) <= PLACES
    assert all(reply.error in ("", DIED_TWICE) for reply in replies.values())


def test_an_engine_that_refuses_the_settings_ends_the_run_in_its_words(start):
    pool = start(replicas=2)

    with pytest.raises(UserError, match=f"{REFUSED}: lower something"):
        list(pool.generate(conversations(20, odd={5: REFUSED}), SAMPLING))


def test_what_nobody_waits_for_any_more_is_dropped(start):
    pool = start(replicas=2, seconds=0.1)
    replies = pool.generate(conversations(1000), SAMPLING)
    next(replies)
    replies.close()

    again = [reply.key for reply in pool.generate(conversations(20, first=5000), SAMPLING)]

    assert sorted(again) == list(range(5000, 5020))


def test_a_node_that_leaves_is_missed_and_one_that_joins_is_used(cluster, start, tmp_path):
    extra = cluster.add(1)
    pool = start(seconds=0.1)  # five replicas
    assert len(asked(tmp_path)) == 5

    def until_a_sixth_is_asked():
        while not any(keys for number, keys in asked(tmp_path).items() if number > 5):
            yield from conversations(1, first=next(keys_of_requests))

    keys_of_requests = count()
    replies = pool.generate(until_a_sixth_is_asked(), SAMPLING)
    keys = [reply.key for reply in islice(replies, 50)]

    cluster.remove(extra)
    keys += [reply.key for reply in islice(replies, 200)]
    joined = cluster.add(1)
    try:
        keys += [reply.key for reply in replies]
    finally:
        pool.close()
        cluster.remove(joined)

    assert sorted(keys) == list(range(len(keys)))
    (dead,) = [title for title, said in pool.summary() if "died" in str(said)]
    times = Counter(key for keys in asked(tmp_path).values() for key in keys)
    assert {key for key, number in times.items() if number > 1} <= set(asked(tmp_path)[int(dead.split()[1])])


def test_a_replica_that_cannot_be_loaded_is_left_out(start, capsys):
    pool = start(replicas=2, make_engine=partial(only_first, seconds=0.01))

    assert len(list(pool.generate(conversations(50), SAMPLING))) == 50
    assert "replica 2 on 127.0.0.1" in capsys.readouterr().err


def test_when_none_can_be_loaded_the_reason_is_told_once(start):
    with pytest.raises(UserError, match=r"no replica is left of 3: this cannot be loaded \(3 times\)"):
        start(replicas=3, make_engine=refuse)


def test_gpus_are_free_for_another_pool_once_one_is_closed(start):
    for _ in range(2):
        pool = start(replicas=2, gpus=2)
        assert len(list(pool.generate(conversations(10), SAMPLING))) == 10
        pool.close()
