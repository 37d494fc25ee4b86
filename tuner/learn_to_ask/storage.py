"""How files are kept: plain, gzip, zstd or Parquet by their names, and whole or not at all."""

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from tuner.learn_to_ask.errors import UserError

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_CHUNK = 1 << 17
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 6
_OTHERS = (".bz2", ".xz", ".lz4", ".zip", ".7z", ".arrow", ".feather", ".parquet.gz", ".parquet.zst")


def is_parquet(path: Path) -> bool:
    """Whether a file that exists is Parquet, or ought to be by its name."""
    return path.suffix == ".parquet" or _head(path) == _PARQUET


def check_writable(path: Path, flag: str) -> None:
    """Refuses an output whose name promises what is not written.

    Raises:
        UserError: Naming the flag.
    """
    if other := next((ending for ending in _OTHERS if path.name.endswith(ending)), None):
        raise UserError(f"{flag} {path}: {other} is not written; end it in .jsonl, .jsonl.gz, .jsonl.zst or .parquet")


def open_lines(path: Path) -> BinaryIO:
    """Opens a file for reading line by line, decompressed where gzip or zstd has written it, whatever its name.

    Reading it raises a `UserError` where the compressed file is damaged or cut off.
    """
    head = _head(path)
    codec = "gzip" if head.startswith(_GZIP) else "zstd" if head == _ZSTD else ""
    if not codec:
        return path.open("rb")
    return cast("BinaryIO", io.BufferedReader(_Decompressed(path, codec), _CHUNK))


class _Decompressed(io.RawIOBase):
    """What is in a compressed file; pyarrow's streams notice a missing end, those of zstandard do not."""

    def __init__(self, path: Path, codec: str) -> None:
        import pyarrow

        self._path = path
        self._stream = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except OSError as error:
            if error.errno:
                raise
            raise UserError(f"{self._path}: the compressed file is damaged or cut off: {error}") from error

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which appears under its name when all of it is on the disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def compressed(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """What is written here goes into an open file as the name of `path` says; the same bytes for the same text."""
    if path.suffix == ".gz":
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as zipped, _buffered(zipped) as lines:
            yield lines
    elif path.suffix == ".zst":
        import zstandard

        writer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(file, closefd=False)
        with writer, _buffered(writer) as lines:
            yield lines
    else:
        yield file


@contextmanager
def _buffered(raw: Any) -> Iterator[BinaryIO]:
    """Hands large pieces on, and leaves the rest to be closed by who opened it."""
    buffer = io.BufferedWriter(raw, _CHUNK)
    yield cast("BinaryIO", buffer)
    buffer.flush()
    buffer.detach()


def _head(path: Path) -> bytes:
    """The bytes by which a format is known."""
    with path.open("rb") as file:
        return file.read(4)
