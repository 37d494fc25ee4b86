"""Which samples a report shows as examples."""

from evaluations import GOOD, HAND_CHECKED, RIGHT_STOP, STOPPED, UNGRADED, asks, evaluation, record, write

from tuner.learn_to_ask.report.examples import MAX_EXAMPLES, choose_examples, rank_examples
from tuner.learn_to_ask.report.reading import read_evaluation


def test_few_samples_are_all_examples_in_the_order_of_the_file(tmp_path):
    file = write(tmp_path / "eval.jsonl", HAND_CHECKED)

    examples = choose_examples([read_evaluation(file, name="base")])

    assert [item["cid"] for item in examples.items] == [one["cid"] for one in HAND_CHECKED]
    assert examples.total == 13
    first = examples.items[0]["evaluations"][0][0]
    assert (first["text"], first["decision"], first["reward"], first["think"]) == (
        "Is it dry?", "continue", 4.0, "because",
    )  # fmt: skip


def test_of_many_samples_the_rare_sorts_and_the_largest_differences_are_examples():
    # Given: 3000 samples that both get right, one stop sample, one on which they differ, one that was not graded
    same = [record(f"{number}_0", "continue", asks(1.0, 1.0)) for number in range(3000)]
    before = [
        *same,
        record("5000_0", "stop", RIGHT_STOP),
        record("6000_0", "continue", STOPPED),
        record("7000_0", "continue", UNGRADED),
    ]
    after = [
        *same,
        record("5000_0", "stop", RIGHT_STOP),
        record("6000_0", "continue", asks(1.0, 1.0)),
        record("7000_0", "continue", UNGRADED),
    ]
    cids = [one["cid"] for one in before]

    ranked = rank_examples([evaluation(before), evaluation(after, "tuned")], cids)

    assert ranked[0] == "6000_0"
    assert {"5000_0", "7000_0"} < set(ranked[:MAX_EXAMPLES])
    assert sorted(ranked) == sorted(cids)
    assert ranked == rank_examples([evaluation(before), evaluation(after, "tuned")], cids)


def test_examples_keep_the_page_small(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.learn_to_ask.report.examples.MAX_BYTES", 3000)
    long = record("2_0", "continue", ("x" * 5000, asks(1.0, 1.0)[1]))
    file = write(tmp_path / "eval.jsonl", [GOOD, long, record("3_0", "stop", RIGHT_STOP)])

    examples = choose_examples([read_evaluation(file, name="base")])

    assert [item["cid"] for item in examples.items] == ["1_0", "3_0"]
    assert examples.total == 3
