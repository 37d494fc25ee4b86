"""Compares evaluations of step 3 and writes a report: Markdown, JSON, and a page that works offline.

Whole interviews of the same policies (--interviews) get a report of their own beside it; evaluations may be left out.

Examples:
  python -m tuner.learn_to_ask.report runs/base/eval.jsonl runs/tuned/eval.jsonl --names base tuned \\
    --interviews runs/base/interviews.jsonl runs/tuned/interviews.jsonl
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, print_summary, run
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.interviews.tables import interviews_text
from tuner.learn_to_ask.report.interviews.write import INTERVIEW_FILES, prepare_interview_report
from tuner.learn_to_ask.report.results import Report
from tuner.learn_to_ask.report.tables import interval, metrics_text
from tuner.learn_to_ask.report.write import FILES, write_report

Row = tuple[str, object]


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [EVAL.jsonl ...] [--interviews INTERVIEWS.jsonl ...] [flags]",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add(
        "files",
        nargs="*",
        type=Path,
        metavar="EVAL.jsonl",
        help="evaluation files of step 3; the first of a policy is the one that every other is compared with",
    )
    add(
        "--interviews",
        nargs="+",
        type=Path,
        default=[],
        metavar="INTERVIEWS.jsonl",
        help="interview files of tuner.learn_to_ask.evaluation.interview, one for each evaluation, in the same order",
    )
    add("--names", nargs="+", help="what the report calls them; default: from the names of the files")
    add("--output_dir", type=Path, help="gets the report; default: the folder of the last file")
    add(
        "--allow_different_graders",
        action="store_true",
        help="compare evaluations that were not graded by the same grader; the report says so",
    )
    add(
        "--allow_different_sampling",
        action="store_true",
        help="compare policies that were not sampled alike; the report says so",
    )
    add(
        "--allow_different_users",
        action="store_true",
        help="compare interviews that were not answered by the same user; the report says so",
    )
    add("--overwrite", action="store_true", help="replace a former report")
    return parser


def main() -> int:
    """Reads the flags, writes the reports and says what they found."""
    started = time.monotonic()
    parser = make_parser()
    arguments = parser.parse_args()
    files: list[Path] = arguments.files
    interview_files: list[Path] = arguments.interviews
    if not files and not interview_files:
        parser.error("name evaluation files, or interview files with --interviews")
    if files and interview_files and len(files) != len(interview_files):
        raise UserError(
            f"--interviews {' '.join(map(str, interview_files))}: {len(interview_files)} for {len(files)} evaluations; "
            "give one for each, in the same order"
        )
    output_dir: Path = arguments.output_dir or (files or interview_files)[-1].parent
    names = choose_names(files or interview_files, arguments.names, what="evaluation" if files else "interview file")
    sampling = arguments.allow_different_sampling
    prepared = None
    if interview_files:
        choose_names(interview_files, names, what="interview file")
        prepared = prepare_interview_report(
            interview_files,
            names=names,
            output_dir=output_dir,
            allow_different_users=arguments.allow_different_users,
            allow_different_sampling=sampling,
            overwrite=arguments.overwrite,
        )
    rows: list[Row] = []
    if files:
        report = write_report(
            files,
            names=names,
            output_dir=output_dir,
            allow_different_graders=arguments.allow_different_graders,
            allow_different_sampling=sampling,
            overwrite=arguments.overwrite,
            interviews=prepared.report if prepared else None,
        )
        print(f"{metrics_text(report)}\n")
        rows += _evaluation_rows(report)
    if prepared:
        prepared.write()
        print(f"{interviews_text(prepared.report)}\n")
        rows += _interview_rows(prepared.report)
    written = [*(FILES if files else ()), *(INTERVIEW_FILES if prepared else ())]
    rows += [("written", output_dir / name) for name in written]
    print_summary("evaluation report" if files else "report of whole interviews", rows, started=started)
    return EXIT_DONE


def _evaluation_rows(report: Report) -> list[Row]:
    """What the summary says of evaluations."""
    rows: list[Row] = []
    for one in report.evaluations:
        rows.append((one.name, f"{one.samples:,} samples, total reward {interval(one.metrics['total_reward'])}"))
    for comparison in report.comparisons:
        reward = comparison.metrics["total_reward"]
        change = f"{interval(reward.difference, signed=True)}, {reward.verdict}"
        rows.append((f"{comparison.name} - {comparison.baseline}", change))
    return [*rows, *(("note", note) for note in report.notes)]


def _interview_rows(report: InterviewReport) -> list[Row]:
    """What the summary says of whole interviews."""
    rows: list[Row] = []
    for one in report.policies:
        rows.append((one.name, f"{one.sessions:,} interviews, coverage at stop {interval(one.metrics['coverage'])}"))
    return [*rows, *(("note", note) for note in report.notes)]


def choose_names(files: Sequence[Path], names: Sequence[str] | None, *, what: str = "evaluation") -> list[str]:
    """The names given, or the shortest that tell the files apart: stem, folder, or whole path.

    Args:
        files: At least one.
        names: As given, if they are.
        what: A file is.

    Raises:
        UserError: When there are too few or too many names, or two are the same.
    """
    if len({file.resolve() for file in files}) < len(files):
        raise UserError(f"{' '.join(map(str, files))}: the same {what} twice; name each file once")
    if names is None:
        ways: tuple[Callable[[Path], str], ...] = (lambda file: file.stem, lambda file: file.resolve().parent.name, str)
        return next(found for way in ways if len(set(found := [way(file) for file in files])) == len(files))
    if len(names) != len(files):
        raise UserError(f"--names {' '.join(names)}: {len(names)} for {len(files)} {what}s; give one for each file")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise UserError(f"--names {' '.join(names)}: names must differ and not be empty")
    return list(names)


if __name__ == "__main__":
    run(main)
