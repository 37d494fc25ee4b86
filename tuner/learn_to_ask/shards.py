"""Shards of a run: which sessions each has, and the note beside its output that says what it is."""

import argparse
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import Journal
from tuner.learn_to_ask.jsonl import write_text


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of a run, in which sessions stay whole.

    Attributes:
        number: Which, from 1 on.
        of: How many there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def setting(self) -> dict[str, str]:
        """What a run depends on, for its fingerprint."""
        return {"shard": str(self)}


class ShardNote(BaseModel):
    """What a shard's output is, in a file beside it.

    Attributes:
        shard: Its number, from 1 on.
        of: How many shards there are.
        record: The record that each line is.
        settings: What the run depended on besides the shard, name -> value.
        records: How many it holds.
        left_out: How many more its part of the input would have made, had no answer failed.
    """

    model_config = ConfigDict(strict=True)

    shard: int = Field(ge=1)
    of: int = Field(ge=1)
    record: str
    settings: dict[str, str]
    records: int = Field(ge=0)
    left_out: int = Field(ge=0)

    def __str__(self) -> str:
        return f"{self.shard}/{self.of}"


def shard_number(session_id: str, of: int) -> int:
    """The shard that a session is in: by its id alone, the same on every machine and whatever else is in the file.

    Args:
        session_id: As records hold it.
        of: How many shards there are, at least 1.
    """
    digest = hashlib.sha256(session_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % of + 1


def in_shard(session_id: str, shard: Shard | None) -> bool:
    """Whether a session is in a shard; every session is in a run without shards."""
    return shard is None or shard_number(session_id, shard.of) == shard.number


def add_shard_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that runs one part of the work."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="do the I-th of N parts, by sessions, say one on each machine; python -m "
        "tuner.learn_to_ask.data_prepare.merge puts the outputs together",
    )


def parse_shard(text: str | None) -> Shard | None:
    """What `--shard` says.

    Raises:
        UserError: When it is no `I/N` with I from 1 to N.
    """
    if text is None:
        return None
    said = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not said or not 1 <= int(said[1]) <= int(said[2]):
        raise UserError(f"--shard {text}: write I/N, the I-th of N parts, with I from 1 to N, such as 1/4")
    return Shard(int(said[1]), int(said[2]))


def note_path(output: Path) -> Path:
    """Where the note of a shard's output is."""
    return output.with_name(f"{output.name}.shard.json")


def note_shard(journal: Journal, shard: Shard | None, record_type: type[BaseModel], *, left_out: int = 0) -> None:
    """Writes the note of an output just before `Journal.finish` writes the output.

    Args:
        journal: Holds all that the output will hold.
        shard: That was done; with `None` a former note is removed.
        record_type: What the output's records are.
        left_out: How many are not in it because answers failed.
    """
    path = note_path(journal.output)
    if shard is None:
        path.unlink(missing_ok=True)
        return
    note = ShardNote(
        shard=shard.number,
        of=shard.of,
        record=record_type.__name__,
        settings={name: value for name, value in journal.fingerprint.items() if name not in shard.setting},
        records=journal.results,
        left_out=left_out,
    )
    write_text(path, note.model_dump_json(indent=2) + "\n")


def read_note(output: Path) -> ShardNote | None:
    """The note of an output, `None` where there is none.

    Raises:
        UserError: When it is damaged.
    """
    path = note_path(output)
    if not path.is_file():
        return None
    try:
        return ShardNote.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; copy it again from where the shard was made") from error


def check_same_shard(output: Path, flag: str, shard: Shard | None) -> None:
    """Makes sure that a finished output, which `--resume` would keep, is of the shard that is asked for.

    Raises:
        UserError: When it is of another one, or the whole.
    """
    if not output.exists():
        return
    note = read_note(output)
    there, asked = (str(note) if note else ""), (str(shard) if shard else "")
    if there != asked:
        is_what = f"is shard {there}" if there else "is complete and no shard"
        wanted = f"--shard asks for {asked}" if asked else "no --shard is given"
        raise UserError(f"{flag} {output}: {is_what}, {wanted}; name another file, or pass --overwrite")


def settings_apart(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """In what two shards differ, for a message; `""` when in nothing."""
    apart = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    return "; ".join(f"{key} is {here.get(key)}, there {there.get(key)}" for key in apart)
