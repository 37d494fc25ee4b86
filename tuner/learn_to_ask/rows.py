"""The rows of a file as they stand: lines of text, or what the columns of Parquet hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.parquet import read_rows
from tuner.learn_to_ask.storage import is_parquet, open_lines

RawRow = bytes | dict[str, Any]
BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 1 << 16


def raw_rows(path: Path, record_type: type[BaseModel], *, quiet: bool = False) -> Iterator[tuple[int, RawRow]]:
    """Yields number, counted from 1, and content of every line that is not blank, or of every row of a Parquet file.

    Args:
        path: An existing file, as `read_jsonl` reads it.
        record_type: What the rows of a Parquet file are read for.
        quiet: Nothing is said of columns that are passed over.

    Raises:
        UserError: When it is neither of both, or damaged.
    """
    if is_parquet(path):
        yield from enumerate(read_rows(path, record_type, quiet=quiet), start=1)
        return
    _refuse_other_formats(path)
    with open_lines(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip(b" \t\r\n\0"):  # a crash leaves zeros at the end of a file
                yield number, line


def _refuse_other_formats(path: Path) -> None:
    """Names a file that is something else than JSON Lines.

    Raises:
        UserError: Saying how to convert it.
    """
    with open_lines(path) as file:
        head = file.read(_HEAD_BYTES)
    lines = "one JSON object a line is wanted"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"["):
        raise UserError(f"{path}: is one JSON array, {lines}; convert it: jq -c '.[]'")
    if text.startswith(b"{") and not text.partition(b"\n")[0].strip()[1:]:
        raise UserError(f"{path}: its JSON is pretty-printed over several lines, {lines}; convert it: jq -c .")
