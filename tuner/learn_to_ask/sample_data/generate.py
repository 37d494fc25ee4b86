"""Writes the sample logs: `python -m tuner.learn_to_ask.sample_data.generate`, always the same ones."""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, run
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.domains import add_domain_argument, load_domain
from tuner.learn_to_ask.jsonl import write_jsonl
from tuner.learn_to_ask.sample_data.vocabulary import Attribute, Vocabulary, vocabulary_of

SEED = 20251023
TRAIN_SESSIONS = 480
TEST_SESSIONS = 120
FOLDER = Path(__file__).parent

# Rounds of questions before the expert is done; 1.05 on average, so that about half of the samples stop.
ROUNDS = (0, 1, 2, 3)
ROUND_WEIGHTS = (0.16, 0.66, 0.14, 0.04)


def generate_sessions(domain: Domain, *, count: int, first_id: int, seed: int) -> Iterator[dict[str, object]]:
    """Yields sessions in RealMedConv's schema (spec section 2).

    Args:
        domain: With a vocabulary.
        count: How many; complaints take turns.
        first_id: The first session's number. Every seventh session carries its id as a string.
        seed: Same seed, same sessions.

    Raises:
        UserError: When the domain has no vocabulary.
    """
    vocabulary = vocabulary_of(domain)
    complaints = vocabulary.complaints
    rng = random.Random(seed)
    for index in range(count):
        complaint = complaints[index % len(complaints)]
        number = first_id + index
        yield {
            "session_id": f"web-{number}" if index % 7 == 6 else number,
            "diagn": complaint.diagnosis,
            "messages": _dialogue(rng, rng.choice(complaint.openings), complaint.attributes, vocabulary, domain),
        }


def _dialogue(
    rng: random.Random, opening: str, attributes: tuple[Attribute, ...], vocabulary: Vocabulary, domain: Domain
) -> list[dict[str, str]]:
    """One interview: an opening, rounds of questions and answers, a closing question, the end marker."""
    messages: list[dict[str, str]] = []
    mark = "？" if domain.full_width else "?"

    def expert(text: str) -> None:
        messages.append({"role": "assistant", "content": text})

    def user(text: str) -> None:
        messages.append({"role": "user", "content": text})

    rounds = rng.choices(ROUNDS, ROUND_WEIGHTS)[0]
    open_questions = rng.sample(attributes, len(attributes))

    if rng.random() < 0.3:
        expert(rng.choice(vocabulary.greetings))
    user(opening)
    for attribute in _take(open_questions, 3 if rounds == 0 else rng.choice((0, 1, 1, 2))):
        user(_answer(rng, attribute))
    if rng.random() < 0.25:
        user(rng.choice(vocabulary.off_topic))
    if rounds == 0:
        user(rng.choice(vocabulary.unasked_closings))

    closes_early = rng.random() < 0.03
    for turn in range(rounds):
        last = turn == rounds - 1
        if rng.random() < 0.06:
            expert(rng.choice(vocabulary.assistant_chat))
            user(rng.choice(vocabulary.user_chat))
        asked = _take(open_questions, 1 if rounds == 3 else rng.choice((1, 2, 2)))
        for attribute in asked:
            expert(f"{attribute.question}{mark}")
        closing = last if not closes_early else turn == 0
        if closing:
            expert(f"{rng.choice(vocabulary.closing_questions)}{mark}")
        elif rng.random() < 0.1:
            expert(rng.choice(vocabulary.assistant_chat))
        if rng.random() < 0.1:
            user(rng.choice(vocabulary.user_chat))
        for attribute in asked:
            if rng.random() > 0.1:  # one question in ten is never answered
                user(_answer(rng, attribute))
        if closing or messages[-1]["role"] != "user":
            user(rng.choice(vocabulary.closing_answers if closing else vocabulary.user_chat))

    if rng.random() < 0.15:
        expert(vocabulary.wait)
    expert(domain.end_marker)
    return messages


def _take(attributes: list[Attribute], count: int) -> list[Attribute]:
    """Removes and returns up to `count` attributes from the front."""
    taken = attributes[:count]
    del attributes[:count]
    return taken


def _answer(rng: random.Random, attribute: Attribute) -> str:
    """One of the ways a user answers."""
    return rng.choice(list(attribute.answers))


def write_sample_logs(domain: Domain, folder: Path) -> list[Path]:
    """Writes both splits of a domain's sample logs.

    Args:
        domain: With a vocabulary.
        folder: Gets `train_origin.jsonl` and `test_origin.jsonl`.

    Returns:
        The two files.
    """
    files = []
    for name, count, first_id, seed in (
        ("train_origin.jsonl", TRAIN_SESSIONS, 10001, SEED),
        ("test_origin.jsonl", TEST_SESSIONS, 20001, SEED + 1),
    ):
        files.append(folder / name)
        write_jsonl(files[-1], generate_sessions(domain, count=count, first_id=first_id, seed=seed))
    return files


def main() -> int:
    """Writes both splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_domain_argument(parser)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to (default: beside this file)")
    arguments = parser.parse_args()
    for file in write_sample_logs(load_domain(arguments.domain), arguments.folder):
        print(f"wrote {file}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
