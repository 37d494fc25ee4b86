"""Writes the sample logs: `python -m tuner.learn_to_ask.sample_data.generate`, always the same ones."""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from tuner.learn_to_ask.jsonl import write_jsonl
from tuner.learn_to_ask.sample_data.vocabulary import (
    CLOSING_ANSWERS,
    CLOSING_QUESTIONS,
    COMPLAINTS,
    DOCTOR_CHAT,
    GREETINGS,
    MEDICATION_TALK,
    PATIENT_CHAT,
    Attribute,
)

SEED = 20251023
TRAIN_SESSIONS = 480
TEST_SESSIONS = 120
FOLDER = Path(__file__).parent

# Rounds of questions before the doctor is done; 1.05 on average, so that about half of the samples stop.
ROUNDS = (0, 1, 2, 3)
ROUND_WEIGHTS = (0.16, 0.66, 0.14, 0.04)


def generate_sessions(*, count: int, first_id: int, seed: int) -> Iterator[dict[str, object]]:
    """Yields sessions in RealMedConv's schema (spec section 2).

    Args:
        count: How many; complaints take turns.
        first_id: The first session's number. Every seventh session carries its id as a string.
        seed: Same seed, same sessions.
    """
    rng = random.Random(seed)
    for index in range(count):
        complaint = COMPLAINTS[index % len(COMPLAINTS)]
        number = first_id + index
        yield {
            "session_id": f"web-{number}" if index % 7 == 6 else number,
            "diagn": complaint.diagnosis,
            "messages": _dialogue(rng, rng.choice(complaint.openings), complaint.attributes),
        }


def _dialogue(rng: random.Random, opening: str, attributes: tuple[Attribute, ...]) -> list[dict[str, str]]:
    """One interview: an opening, rounds of questions and answers, a closing question, `<med_search>`."""
    messages: list[dict[str, str]] = []

    def doctor(text: str) -> None:
        messages.append({"role": "assistant", "content": text})

    def patient(text: str) -> None:
        messages.append({"role": "user", "content": text})

    rounds = rng.choices(ROUNDS, ROUND_WEIGHTS)[0]
    open_questions = rng.sample(attributes, len(attributes))

    if rng.random() < 0.3:
        doctor(rng.choice(GREETINGS))
    patient(opening)
    for attribute in _take(open_questions, 3 if rounds == 0 else rng.choice((0, 1, 1, 2))):
        patient(_answer(rng, attribute))
    if rng.random() < 0.25:
        patient(rng.choice(MEDICATION_TALK))
    if rounds == 0:
        patient(rng.choice(("no drug allergies, what should i take", "i have no drug allergies, please help")))

    closes_early = rng.random() < 0.03
    for turn in range(rounds):
        last = turn == rounds - 1
        if rng.random() < 0.06:
            doctor(rng.choice(DOCTOR_CHAT))
            patient(rng.choice(PATIENT_CHAT))
        asked = _take(open_questions, 1 if rounds == 3 else rng.choice((1, 2, 2)))
        for attribute in asked:
            doctor(f"{attribute.question}?")
        closing = last if not closes_early else turn == 0
        if closing:
            doctor(f"{rng.choice(CLOSING_QUESTIONS)}?")
        elif rng.random() < 0.1:
            doctor(rng.choice(DOCTOR_CHAT))
        if rng.random() < 0.1:
            patient(rng.choice(PATIENT_CHAT))
        for attribute in asked:
            if rng.random() > 0.1:  # one question in ten is never answered
                patient(_answer(rng, attribute))
        if closing or messages[-1]["role"] != "user":
            patient(rng.choice(CLOSING_ANSWERS if closing else PATIENT_CHAT))

    if rng.random() < 0.15:
        doctor("please wait a moment")
    doctor("<med_search>")
    return messages


def _take(attributes: list[Attribute], count: int) -> list[Attribute]:
    """Removes and returns up to `count` attributes from the front."""
    taken = attributes[:count]
    del attributes[:count]
    return taken


def _answer(rng: random.Random, attribute: Attribute) -> str:
    """One of the ways a patient answers."""
    return rng.choice(list(attribute.answers))


def main() -> None:
    """Writes both splits beside this file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, count, first_id, seed in (
        ("train_origin.jsonl", TRAIN_SESSIONS, 10001, SEED),
        ("test_origin.jsonl", TEST_SESSIONS, 20001, SEED + 1),
    ):
        write_jsonl(FOLDER / name, generate_sessions(count=count, first_id=first_id, seed=seed))
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
