"""Splits a file of sessions in two, and looks for leaks between two files."""

import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary, progress
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.data_prepare.curation.near_duplicates import Signatures, crossing_pairs, near_pairs
from tuner.learn_to_ask.data_prepare.curation.splitting import Stratum, choose_test, groups_of, stratum_of
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, require_input, write_jsonl

SHOWN_LEAKS = 5
_FAR_OFF = 0.02  # from the wanted share, which near-duplicates that stay together can cause


def split_sessions(
    *,
    input_file: Path,
    train_file: Path,
    test_file: Path,
    test_share: float,
    seed: int,
    similarity: float,
    strict: bool = False,
    max_bad_lines: float = 0.01,
    overwrite: bool = False,
) -> int:
    """Writes each session into one of two files, in input order.

    Args:
        input_file: Sessions.
        train_file: Gets those to train on.
        test_file: Gets those to test with.
        test_share: Of the sessions, in (0, 1).
        seed: Same seed and input, same split.
        similarity: From which on two sessions are near-duplicates and stay together, in (0, 1].
        strict: A bad line is an error instead of skipped.
        max_bad_lines: Share of unusable lines that is still a success.
        overwrite: Replace finished outputs.

    Returns:
        The exit code.

    Raises:
        UserError: When a file cannot be used, or one side would be empty.
    """
    started = time.monotonic()
    require_input(input_file, "IN")
    if len({path.resolve() for path in (input_file, train_file, test_file)}) < 3:
        raise UserError(f"--train {train_file}, --test {test_file}: name two files that are not IN")
    check_output(train_file, "--train", overwrite=overwrite)
    check_output(test_file, "--test", overwrite=overwrite)
    lines = ReadReport()
    total = count_lines(input_file)
    signatures, strata = Signatures(total), list[Stratum]()
    known: dict[Stratum, Stratum] = {}
    for session in progress(_read(input_file, lines, strict=strict), title="reading", total=total, unit="sessions"):
        signatures.fill(len(strata), session)
        stratum = stratum_of(session)
        strata.append(known.setdefault(stratum, stratum))
    in_test, groups = _split(signatures, strata, test_share=test_share, seed=seed, similarity=similarity)
    if len(set(in_test)) < 2:
        only = "test" if any(in_test) else "training"
        raise UserError(f"IN {input_file}: all {len(strata)} sessions would be in the {only} set; change --test_share")
    for path, side in ((train_file, False), (test_file, True)):
        again = progress(
            _read(input_file, ReadReport(), quiet=True), title="writing", total=len(strata), unit="sessions"
        )
        write_jsonl(path, (session for session, tested in zip(again, in_test, strict=True) if tested == side))

    together = sum(size for size in Counter(groups).values() if size > 1)
    share = sum(in_test) / len(in_test)
    print_summary(
        f"split: {train_file}, {test_file}",
        [
            ("sessions", f"{len(strata):,}"),
            *lines.skipped_rows,
            ("strata of diagnosis and length", f"{len(known):,}"),
            ("near-duplicates, kept on one side", f"{together:,}"),
            ("train", f"{len(in_test) - sum(in_test):,}"),
            ("test", f"{sum(in_test):,} ({share:.1%})"),
            ("near-duplicates across", 0),
        ],
        started=started,
    )
    if abs(share - test_share) > max(_FAR_OFF, 1 / len(in_test)):
        print(
            f"warning: the test set is {share:.1%} of the sessions, {test_share:.1%} were asked for: too many are "
            "near-duplicates of each other; curate them first",
            file=sys.stderr,
        )
    return EXIT_FAILURES if lines.too_many_bad(max_bad_lines) else EXIT_DONE


def check_split(train_file: Path, test_file: Path, *, similarity: float, max_bad_lines: float = 0.01) -> int:
    """Says which sessions of a test set a training set holds as well, or nearly.

    Args:
        train_file: Sessions to train on.
        test_file: Sessions to test with.
        similarity: From which on two sessions are near-duplicates, in (0, 1].
        max_bad_lines: Share of unusable lines that is still a success.

    Returns:
        The exit code: 1 when there is a leak.

    Raises:
        UserError: When a file cannot be used.
    """
    started = time.monotonic()
    require_input(train_file, "--train")
    require_input(test_file, "--test")
    total = count_lines(train_file) + count_lines(test_file)
    signatures, ids = Signatures(total), list[str]()
    reports = (ReadReport(), ReadReport())
    in_test = array("b")
    for side, (path, lines) in enumerate(zip((train_file, test_file), reports, strict=True)):
        for session in progress(_read(path, lines), title=f"reading {path.name}", total=None, unit="sessions"):
            signatures.fill(len(ids), session)
            ids.append(session.session_id)
            in_test.append(side)
    trained = set(ids[: reports[0].good])
    same_id = [session_id for session_id in ids[reports[0].good :] if session_id in trained]
    leaks = crossing_pairs(
        signatures.rows[: len(ids)], np.array(in_test, dtype=bool), similarity=similarity, watch=_watch
    )
    for session_id in same_id[:SHOWN_LEAKS]:
        print(f"{test_file}: session {session_id} is in {train_file} as well", file=sys.stderr)
    for pair in leaks[:SHOWN_LEAKS]:
        said = f"is {pair.similarity:.0%} like session {ids[pair.first]} of {train_file}"
        print(f"{test_file}: session {ids[pair.second]} {said}", file=sys.stderr)
    print_summary(
        f"checked: {test_file} against {train_file}",
        [
            ("train", f"{reports[0].good:,}"),
            *reports[0].skipped_rows,
            ("test", f"{reports[1].good:,}"),
            *reports[1].skipped_rows,
            ("session ids on both sides", f"{len(same_id):,}"),
            ("test sessions with a near-duplicate in train", f"{len(leaks):,}"),
        ],
        started=started,
    )
    bad = any(lines.too_many_bad(max_bad_lines) for lines in reports)
    return EXIT_FAILURES if same_id or leaks or bad else EXIT_DONE


def _split(
    signatures: Signatures, strata: list[Stratum], *, test_share: float, seed: int, similarity: float
) -> tuple[list[bool], list[int]]:
    """For each session whether it is in the test set, and its group; drawn again until nothing leaks."""
    rows = signatures.rows[: len(strata)]
    together = [(pair.first, pair.second) for pair in near_pairs(rows, similarity=similarity, watch=_watch)]
    while True:
        groups = groups_of(len(strata), together)
        in_test = choose_test(strata, groups, test_share=test_share, seed=seed)
        leaks = crossing_pairs(rows, np.array(in_test, dtype=bool), similarity=similarity, watch=_watch)
        if not leaks:
            return in_test, groups
        together += [(pair.first, pair.second) for pair in leaks]


def _watch(bands: Iterable[int]) -> Iterator[int]:
    """Shows how far a comparison is."""
    return progress(bands, title="comparing", total=None, unit="bands of hashes")


def _read(path: Path, lines: ReadReport, *, strict: bool = False, quiet: bool = False) -> Iterator[Session]:
    """The sessions of a file."""
    return read_jsonl(path, Session, unique_key="session_id", report=lines, strict=strict, quiet=quiet)
