"""Step B: labels samples and writes the training or test set (spec section 4)."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary, progress
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.labels import foreign_fields, to_task
from tuner.learn_to_ask.core.records import Sample, Task
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input, write_jsonl


def build_dataset(
    *, input_file: Path, output_file: Path, domain: Domain, strict: bool, overwrite: bool, max_bad_lines: float = 0.01
) -> int:
    """Writes a `Task` for every sample with something to reward.

    Args:
        input_file: Samples of step A.
        output_file: Tasks, in input order.
        domain: What counts as information.
        strict: A bad line is an error instead of skipped.
        overwrite: Replace finished output.
        max_bad_lines: Share of unusable lines that is still a success.

    Returns:
        The exit code.

    Raises:
        UserError: When no sample is left, or most information is of fields that the domain does not have.
    """
    started = time.monotonic()
    require_input(input_file, "--input_file")
    check_output(output_file, "--output_file", overwrite=overwrite)
    report = ReadReport()
    outcome: Counter[str] = Counter()
    foreign: Counter[str] = Counter()
    items = 0

    def tasks() -> Iterator[Task]:
        samples = read_jsonl(input_file, Sample, unique_key="cid", report=report, strict=strict)
        nonlocal items
        for sample in progress(samples, title="building", total=None, unit="samples"):
            items += len(sample.info_set or ())
            foreign.update(foreign_fields(sample.info_set or (), domain.information))
            task = to_task(sample)
            if task is None:
                outcome["extraction failed" if sample.info_set is None else "no information"] += 1
            else:
                outcome[task.decision_truth] += 1
                yield task
        if 2 * foreign.total() > items:
            said = ", ".join(field for field, _ in foreign.most_common(3))
            raise UserError(
                f"--input_file {input_file}: {foreign.total()} of {items} items of information are of fields that "
                f"domain {domain.name} does not have, such as {said}; name the --domain that step A was run with"
            )
        if not outcome["continue"] + outcome["stop"]:
            raise UserError(f"--input_file {input_file}: no sample is left to train on; run step A on more sessions")

    written = write_jsonl(output_file, tasks(), Task)
    print_summary(
        f"built: {output_file}",
        [
            ("samples", report.good),
            *report.skipped_rows,
            ("dropped: continue, no information", outcome["no information"]),
            ("dropped: continue, extraction failed", outcome["extraction failed"]),
            ("tasks", written),
            ("  continue", outcome["continue"]),
            ("  stop", outcome["stop"]),
            *((f"of another domain: {field}", f"{count} items") for field, count in foreign.most_common(5)),
        ],
        started=started,
    )
    futures = outcome["continue"] + outcome["no information"] + outcome["extraction failed"]
    if futures > 2 * outcome["continue"]:
        print(
            f"warning: {futures - outcome['continue']} of {futures} samples to continue from are dropped: stop is "
            f"{outcome['stop'] / written:.0%} of the tasks, and was {outcome['stop'] / report.good:.0%} of the samples",
            file=sys.stderr,
        )
    return EXIT_FAILURES if report.too_many_bad(max_bad_lines) else EXIT_DONE
