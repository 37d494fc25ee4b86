"""Records as rows of Parquet files: a column for each field, JSON text where a field may be anything."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, BinaryIO, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict

from tuner.learn_to_ask.errors import UserError

# Marks a column of JSON text, see `as_text`.
_OPEN = {b"learn2ask": b"json"}
_ITEMS_AT_ONCE = 8192  # rows, or items of their longest lists, that are Python objects at a time
_GROUP_BYTES, _GROUP_ROWS = 16 << 20, 1 << 16  # of a row group
_PLAIN = {str: "string", int: "int64", float: "float64", bool: "bool"}


def as_text(value: object) -> str | None:
    """A value of an open field as its column holds it: texts as they stand, all else as JSON, nothing as null.

    A text that is JSON itself, such as `12`, is written as a JSON string, so that nothing changes on its way.
    """
    if value is None or (isinstance(value, str) and not _is_json(value)):
        return value
    return json.dumps(value, ensure_ascii=False)


def from_text(text: str | None) -> Any:
    """The value that `as_text` made the text of."""
    return json.loads(text) if text is not None and _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def schema_of(record_type: type[BaseModel]) -> Any:
    """The `pyarrow.Schema` of a record's files."""
    import pyarrow

    fields = []
    for name, field in record_type.model_fields.items():
        if not field.exclude:
            is_open = field.annotation is Any
            kind = pyarrow.string() if is_open else _column(field.annotation)
            fields.append(pyarrow.field(name, kind, metadata=_OPEN if is_open else None))
    return pyarrow.schema(fields)


def _column(annotation: Any) -> Any:
    """The type of the column that holds what a type hint says.

    Raises:
        TypeError: For a type that no record has yet.
    """
    import pyarrow

    if annotation in _PLAIN:
        return getattr(pyarrow, _PLAIN[annotation] if annotation is not bool else "bool_")()
    parts = [part for part in get_args(annotation) if part is not NoneType]
    origin = get_origin(annotation)
    if origin is Literal and all(isinstance(part, str) for part in parts):
        return pyarrow.string()
    if origin in (Union, UnionType) and len(parts) == 1:
        return _column(parts[0])
    if origin is list:
        return pyarrow.list_(_column(parts[0]))
    if is_typeddict(annotation):
        return pyarrow.struct([(name, _column(hint)) for name, hint in get_type_hints(annotation).items()])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pyarrow.struct([(name, _column(each.annotation)) for name, each in annotation.model_fields.items()])
    raise TypeError(f"no column can hold {annotation}")


def write_rows(file: BinaryIO, records: Iterable[BaseModel | dict[str, Any]], record_type: type[BaseModel]) -> int:
    """Writes records in row groups of up to 16 MiB or 65,536 rows; the same bytes for the same records.

    Args:
        file: To write to.
        records: Consumed one by one.
        record_type: What each of them is, or says as a dictionary.

    Returns:
        How many there were.
    """
    import pyarrow
    from pyarrow import parquet

    schema = schema_of(record_type)
    is_open = [field.name for field in schema if field.metadata == _OPEN]
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        batches: list[Any] = []

        def flush() -> None:
            if batches:
                writer.write_table(pyarrow.Table.from_batches(batches, schema), row_group_size=_GROUP_ROWS)
                batches.clear()

        for rows in _bundles(records):
            for row in rows:
                for name in is_open:
                    row[name] = as_text(row.get(name))
            count += len(rows)
            batches.append(pyarrow.RecordBatch.from_pylist(rows, schema=schema))
            full = sum(batch.nbytes for batch in batches) >= _GROUP_BYTES
            if full or sum(batch.num_rows for batch in batches) >= _GROUP_ROWS:
                flush()
        flush()
    return count


def _bundles(records: Iterable[BaseModel | dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Records as rows, as many at a time as are small together."""
    rows: list[dict[str, Any]] = []
    items = 0
    for record in records:
        row = record.model_dump() if isinstance(record, BaseModel) else dict(record)
        rows.append(row)
        items += max((len(value) for value in row.values() if isinstance(value, list)), default=1)
        if items >= _ITEMS_AT_ONCE:
            yield rows
            rows, items = [], 0
    if rows:
        yield rows


@contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`.

    Raises:
        UserError: When it is damaged, cut off, or no Parquet.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read as Parquet, it is damaged, cut off or none: {said}") from error


def read_rows(path: Path, record_type: type[BaseModel], *, quiet: bool = False) -> Iterator[dict[str, Any]]:
    """Yields what each row of a file says of a record.

    Args:
        path: An existing file.
        record_type: Gives the columns.
        quiet: Nothing is said of columns that are passed over.

    Raises:
        UserError: When it cannot be read, or lacks a column that the record cannot be without.
    """
    with parquet_file(path) as file:
        there = file.schema_arrow.names
        fields = {name: field for name, field in record_type.model_fields.items() if not field.exclude}
        missing = [name for name, field in fields.items() if field.is_required() and name not in there]
        if missing:
            raise UserError(f"{path}: has no column {', '.join(missing)}; there are: {', '.join(there[:20])}")
        unknown = [name for name in there if name not in fields]
        if unknown and not quiet:
            print(f"{path}: columns passed over: {', '.join(unknown[:20])}", file=sys.stderr)
        yield from iter_rows(file, [name for name in there if name in fields])


def iter_rows(file: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of an open file, few at a time, with what `as_text` wrote as it was before.

    Args:
        file: Of `parquet_file`.
        columns: The names of those that are wanted.
    """
    schema = file.schema_arrow
    is_open = [name for name in columns if (schema.field(name).metadata or {}).get(b"learn2ask") == b"json"]
    for group in range(file.num_row_groups):
        size = _rows_at_once(file.metadata.row_group(group))
        for batch in file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
            for row in batch.to_pylist():
                for name in is_open:
                    row[name] = from_text(row[name])
                yield row


def count_rows(path: Path) -> int:
    """Number of rows, from the end of the file."""
    with parquet_file(path) as file:
        return int(file.metadata.num_rows)


def _rows_at_once(group: Any) -> int:
    """Rows of a row group that are small together."""
    values = max((int(group.column(index).num_values) for index in range(group.num_columns)), default=0)
    return max(1, _ITEMS_AT_ONCE * int(group.num_rows) // max(1, values))
