"""Writes sample logs as a help desk exports them: `python -m tuner.learn_to_ask.sample_data.export OUT.csv`.

A table with a row for each message, in the order of sending, chats mixed; with what real exports have too: chats that
are there twice, that broke off, that one side never joined, in another language, advertising, phone numbers, addresses.
"""

import argparse
import csv
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, check_output, run
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.sample_data.generate import generate_sessions

COLUMNS = ("chat_id", "sent_at", "author", "text")
SESSIONS = 160
_SEED = 20261127
_START = datetime(2026, 3, 2, 8, 0)
_CONTACTS = ("you can call me at +1 212 555 0143", "write to jane.miller@example.com", "my number is (415) 555-0119")
_SPAM = (
    "WIN a FREE phone now!!! click http://prizes.example http://prizes.example http://prizes.example",
    "cheap licences cheap licences cheap licences cheap licences http://deals.example",
)
_GERMAN = (
    ("user", "mein Drucker druckt seit gestern nur noch leere Seiten, was soll ich tun"),
    ("assistant", "welches Modell ist es und leuchtet eine Lampe am Gerät?"),
    ("user", "ein älteres Modell aus dem Büro, und die Lampe blinkt die ganze Zeit gelb"),
)
Chat = list[tuple[str, str]]  # (side, text)


def export_rows(domain: Domain) -> list[dict[str, str]]:
    """The rows of the table, always the same ones.

    Args:
        domain: With a vocabulary.
    """
    rng = random.Random(_SEED)
    rows = []
    for number, chat in enumerate(_chats(domain, rng)):
        sent = _START + timedelta(minutes=rng.randrange(60 * 24 * 20))
        for side, text in chat:
            sent += timedelta(seconds=rng.randrange(5, 240))
            author = domain.speakers.user if side == "user" else rng.choice((domain.speakers.assistant, "supervisor"))
            rows.append(dict(zip(COLUMNS, (f"chat-{number + 1:04}", sent.isoformat(), author, text), strict=True)))
    return sorted(rows, key=lambda row: row["sent_at"])


def _chats(domain: Domain, rng: random.Random) -> Iterator[Chat]:
    """Good chats, and every tenth time something else."""
    sessions = generate_sessions(domain, count=SESSIONS, first_id=1, seed=_SEED)
    for number, session in enumerate(sessions):
        chat = [(message["role"], message["content"]) for message in session["messages"]]  # type: ignore[attr-defined]
        first_of_user = next(place for place, (side, _) in enumerate(chat) if side == "user")
        if number % 8 == 3:  # personal data, in the middle of a good chat
            chat.insert(first_of_user + 1, ("user", rng.choice(_CONTACTS)))
        yield chat
        match number % 40:
            case 5:
                yield chat  # the same once more
            case 10:
                yield [*chat[:first_of_user], ("user", f"hello, {chat[first_of_user][1]}"), *chat[first_of_user + 1 :]]
            case 15:
                yield chat[:-1]  # broken off
            case 20:
                yield [turn for turn in chat if turn[0] == "user"]
            case 25:
                yield [("user", rng.choice(_SPAM)), ("assistant", domain.end_marker)]
            case 30:
                yield [*_GERMAN, ("assistant", domain.end_marker)]


def main() -> int:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args()
    check_output(arguments.output, "OUT", overwrite=arguments.overwrite)
    with arguments.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(export_rows(load_domain("it_support")))
    print(f"wrote {arguments.output}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
