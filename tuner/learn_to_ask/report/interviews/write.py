"""Writes the report of some interview files: interviews.md, interviews.json and interviews.html."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.learn_to_ask.jsonl import write_text
from tuner.learn_to_ask.report.interviews.analysis import analyse_interviews
from tuner.learn_to_ask.report.interviews.columns import check_interviews_comparable, read_interviews
from tuner.learn_to_ask.report.interviews.examples import choose_interviews
from tuner.learn_to_ask.report.interviews.page import interviews_to_html
from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.markdown import interviews_to_markdown
from tuner.learn_to_ask.report.outputs import as_json, claim_outputs

INTERVIEW_FILES = ("interviews.md", "interviews.json", "interviews.html")


@dataclass(frozen=True, slots=True)
class PreparedReport:
    """A report of interviews that is not written yet.

    Attributes:
        report: What it says.
        texts: File -> its content.
    """

    report: InterviewReport
    texts: Mapping[Path, str]

    def write(self) -> None:
        """Writes the files."""
        for path, text in self.texts.items():
            write_text(path, text)


def prepare_interview_report(
    files: Sequence[Path],
    *,
    names: Sequence[str],
    output_dir: Path,
    allow_different_users: bool = False,
    allow_different_sampling: bool = False,
    overwrite: bool = False,
) -> PreparedReport:
    """Reads interviews, compares them with the first, and makes of it what is to be written.

    Args:
        files: Interview files of `evaluation.interview`, at least one.
        names: What the report calls them.
        output_dir: Gets the three files; made when it is not there.
        allow_different_users: Compare interviews that were answered by different users all the same.
        allow_different_sampling: Compare interviews of policies with different sampling all the same.
        overwrite: Replace a former report.

    Raises:
        UserError: When a file cannot be used, interviews do not compare, or a report is in the way.
    """
    outputs = claim_outputs(output_dir, INTERVIEW_FILES, files, what="interviews", overwrite=overwrite)
    read = [read_interviews(file, name=name) for file, name in zip(files, names, strict=True)]
    check_interviews_comparable(
        read, allow_different_users=allow_different_users, allow_different_sampling=allow_different_sampling
    )
    report = analyse_interviews(read)
    texts = (
        interviews_to_markdown(report),
        as_json(report),
        interviews_to_html(report, choose_interviews(read)),
    )
    return PreparedReport(report, dict(zip(outputs, texts, strict=True)))
