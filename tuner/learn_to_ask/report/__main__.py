"""Compares evaluations of step 3 and writes a report: Markdown, JSON, and a page that works offline.

python -m tuner.learn_to_ask.report runs/base/eval.jsonl runs/tuned/eval.jsonl --names base tuned
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, print_summary, run
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.report.tables import interval, metrics_text
from tuner.learn_to_ask.report.write import FILES, write_report


def main() -> int:
    """Reads the flags, writes the report and says what it found."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="EVAL.jsonl",
        help="evaluation files of step 3; the first of a policy is the one that every other is compared with",
    )
    parser.add_argument("--names", nargs="+", help="what the report calls them; default: from the names of the files")
    parser.add_argument("--output_dir", type=Path, help="gets the report; default: the folder of the last file")
    parser.add_argument(
        "--allow_different_graders",
        action="store_true",
        help="compare evaluations that were not graded by the same grader; the report says so",
    )
    parser.add_argument(
        "--allow_different_sampling",
        action="store_true",
        help="compare evaluations whose policies were not sampled alike; the report says so",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a former report")
    arguments = parser.parse_args()
    files: list[Path] = arguments.files
    output_dir: Path = arguments.output_dir or files[-1].parent

    report = write_report(
        files,
        names=choose_names(files, arguments.names),
        output_dir=output_dir,
        allow_different_graders=arguments.allow_different_graders,
        allow_different_sampling=arguments.allow_different_sampling,
        overwrite=arguments.overwrite,
    )

    print(f"{metrics_text(report)}\n")
    rows: list[tuple[str, object]] = []
    for one in report.evaluations:
        rows.append((one.name, f"{one.samples:,} samples, total reward {interval(one.metrics['total_reward'])}"))
    for comparison in report.comparisons:
        reward = comparison.metrics["total_reward"]
        change = f"{interval(reward.difference, signed=True)}, {reward.verdict}"
        rows.append((f"{comparison.name} - {comparison.baseline}", change))
    rows += [("note", note) for note in report.notes]
    rows += [("written", output_dir / name) for name in FILES]
    print_summary("evaluation report", rows, started=started)
    return EXIT_DONE


def choose_names(files: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """The names given, or the shortest that tell the files apart: stem, folder, or whole path.

    Raises:
        UserError: When there are too few or too many names, or two are the same.
    """
    if len({file.resolve() for file in files}) < len(files):
        raise UserError(f"{' '.join(map(str, files))}: the same evaluation twice; name each file once")
    if names is None:
        ways: tuple[Callable[[Path], str], ...] = (lambda file: file.stem, lambda file: file.resolve().parent.name, str)
        return next(found for way in ways if len(set(found := [way(file) for file in files])) == len(files))
    if len(names) != len(files):
        raise UserError(f"--names {' '.join(names)}: {len(names)} for {len(files)} evaluations; give one for each file")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise UserError(f"--names {' '.join(names)}: names must differ and not be empty")
    return list(names)


if __name__ == "__main__":
    run(main)
