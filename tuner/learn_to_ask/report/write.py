"""Writes the report of some evaluation files: report.md, report.json and report.html."""

from collections.abc import Sequence
from pathlib import Path

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.jsonl import write_text
from tuner.learn_to_ask.report.analysis import analyse
from tuner.learn_to_ask.report.examples import choose_examples
from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.markdown import to_markdown
from tuner.learn_to_ask.report.outputs import as_json, claim_outputs
from tuner.learn_to_ask.report.page import to_html
from tuner.learn_to_ask.report.reading import check_comparable, read_evaluation
from tuner.learn_to_ask.report.results import Report

FILES = ("report.md", "report.json", "report.html")


def write_report(
    files: Sequence[Path],
    *,
    names: Sequence[str],
    output_dir: Path,
    allow_different_graders: bool = False,
    allow_different_sampling: bool = False,
    overwrite: bool = False,
    interviews: InterviewReport | None = None,
) -> Report:
    """Reads evaluations, compares them with the first, and writes what comes of it.

    Args:
        files: Evaluation files of step 3, at least one.
        names: What the report calls them.
        output_dir: Gets the three files; made when it is not there.
        allow_different_graders: Compare evaluations of different graders all the same.
        allow_different_sampling: Compare evaluations with different sampling all the same.
        overwrite: Replace a former report.
        interviews: Of the same policies, written to the same folder: shown and linked to.

    Raises:
        UserError: When a file cannot be used, evaluations do not compare, or a report is in the way.
    """
    outputs = claim_outputs(output_dir, FILES, files, what="evaluation", overwrite=overwrite)
    evaluations = [read_evaluation(file, name=name) for file, name in zip(files, names, strict=True)]
    check_comparable(
        evaluations,
        allow_different_graders=allow_different_graders,
        allow_different_sampling=allow_different_sampling,
    )
    report = analyse(
        evaluations,
        watch=lambda every: progress(every, title="computing intervals", total=len(every), unit="evaluations"),
    )
    examples = choose_examples(evaluations)
    texts = (
        to_markdown(report, interviews),
        as_json(report),
        to_html(report, examples, interviews=interviews is not None),
    )
    for output, text in zip(outputs, texts, strict=True):
        write_text(output, text)
    return report
