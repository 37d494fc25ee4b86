"""One curation: two passes over the file, the judge between them, then the output, the report and the summary."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary, progress
from tuner.learn_to_ask.core.domain import Speakers
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.data_prepare.curation.distributions import distribution
from tuner.learn_to_ask.data_prepare.curation.examine import CurationSettings, Examiner
from tuner.learn_to_ask.data_prepare.curation.judge import JudgeSettings, judge_sessions, read_judgements, score_of
from tuner.learn_to_ask.data_prepare.curation.page import (
    CurationReport,
    Example,
    ReasonReport,
    curation_page,
    example_of,
)
from tuner.learn_to_ask.data_prepare.curation.reasons import Reason, reasons
from tuner.learn_to_ask.data_prepare.curation.survey import FIGURES, REASONS, Survey, survey_sessions
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import Journal
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, require_input, write_jsonl, write_text

EXAMPLES = 10  # of each reason, in the report
_DIAGNOSES = 30  # in the report


def curate(
    *,
    input_file: Path,
    output_file: Path,
    report_file: Path | None,
    speakers: Speakers,
    settings: CurationSettings,
    judge: JudgeSettings | None = None,
    strict: bool = False,
    max_bad_lines: float = 0.01,
    resume: bool = False,
    overwrite: bool = False,
) -> int:
    """Writes the sessions that are kept, in input order, and a report of the others.

    Args:
        input_file: Sessions.
        output_file: Sessions that are kept.
        report_file: Gets the page; `None` for none.
        speakers: What the page calls the two sides.
        settings: Of the rules.
        judge: Of the judge; `None` for none.
        strict: A bad line is an error instead of skipped.
        max_bad_lines: Share of unusable lines that is still a success.
        resume: Keep a finished output; continue an unfinished judge.
        overwrite: Replace finished outputs.

    Returns:
        The exit code.

    Raises:
        UserError: When the input or a flag cannot be used, or no session is left.
    """
    started = time.monotonic()
    require_input(input_file, "IN")
    if resume and output_file.exists():
        print(f"{output_file}: already complete")
        return EXIT_DONE
    _check_outputs(input_file, output_file, report_file, judge, resume=resume, overwrite=overwrite)
    lines = ReadReport()
    total = count_lines(input_file)
    examiner = Examiner(settings)
    sessions = read_jsonl(input_file, Session, unique_key="session_id", report=lines, strict=strict)
    watched = progress(sessions, title="examining", total=total, unit="sessions")
    survey = survey_sessions(
        watched,
        examiner=examiner,
        settings=settings,
        capacity=total,
        watch=lambda bands: progress(bands, title="comparing", total=None, unit="bands of hashes"),
    )
    if not lines.good:
        raise UserError(f"IN {input_file}: holds no usable session, one JSON object a line is wanted")

    code = EXIT_FAILURES if lines.too_many_bad(max_bad_lines) else EXIT_DONE
    not_judged = 0
    if judge:
        passed = _kept(input_file, survey, examiner, title="judging")
        code = max(code, judge_sessions(passed, input_file=input_file, rules=repr(settings), settings=judge))
        not_judged = _apply_judgements(survey, judge)
    stated = reasons(settings, least_score=judge.least if judge else None)
    remarks = _remarks(lines, survey, settings, not_judged=not_judged)
    if report_file:
        examples = _examples(input_file, survey, examiner)
        shown = _report(input_file, survey, speakers, stated=stated, examples=examples, remarks=remarks)
        write_text(report_file, curation_page(shown))
    if not survey.kept_count():
        (reason, count), *_ = survey.dropped().most_common(1)
        raise UserError(
            f"IN {input_file}: no session is left, {count} were dropped as {reason}; loosen what drops them"
        )
    write_jsonl(output_file, _kept(input_file, survey, examiner, title="writing"), Session)
    dropped = survey.dropped()
    rows: list[tuple[str, object]] = [("sessions", f"{lines.good:,}")]
    rows += [(f"dropped: {reason.title}", f"{dropped[reason.key]:,}") for reason in stated if dropped[reason.key]]
    rows += [*remarks, ("kept", f"{survey.kept_count():,} ({survey.kept_count() / lines.good:.1%})")]
    rows += [("report", report_file)] if report_file else []
    print_summary(f"curated: {output_file}", rows, started=started)
    return code


def _remarks(
    lines: ReadReport, survey: Survey, settings: CurationSettings, *, not_judged: int
) -> list[tuple[str, object]]:
    """Label and value of what else happened, for the summary and the report."""
    remarks: list[tuple[str, object]] = [*lines.skipped_rows]
    remarks += [(f"left out: {why}", f"{count:,}") for why, count in sorted(survey.left_out.items())]
    if settings.personal_data == "mask":
        remarks += [(f"masked: {kind}", f"{count:,}") for kind, count in sorted(survey.personal.items())]
        remarks += [("masked in", f"{len(survey.with_personal):,} sessions")] if survey.with_personal else []
    remarks += [("kept though the judge said nothing readable", f"{not_judged:,}")] if not_judged else []
    return remarks


def _check_outputs(
    input_file: Path,
    output_file: Path,
    report_file: Path | None,
    judge: JudgeSettings | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Refuses outputs that are in the way, before anything is read.

    Raises:
        UserError: Naming the first.
    """
    judgements = judge.judgements_file if judge else None
    named = [("OUT", output_file), ("--report", report_file), ("--judgements", judgements)]
    outputs = [(flag, path) for flag, path in named if path]
    for place, (flag, path) in enumerate(outputs):
        if path.resolve() in [input_file.resolve(), *(other.resolve() for _, other in outputs[:place])]:
            raise UserError(f"{flag} {path}: is another file of this run too; name another")
        check_output(path, flag, overwrite=overwrite or (resume and path == judgements))
    if judgements:
        Journal.check_unfinished(judgements, resume=resume, overwrite=overwrite)


def _kept(input_file: Path, survey: Survey, examiner: Examiner, *, title: str) -> Iterator[Session]:
    """The sessions that are kept so far, masked, read once more."""
    for position, session in _again(input_file, survey, title=title):
        if survey.kept(position):
            yield examiner.mask(session)[0] if position in survey.with_personal else session


def _again(input_file: Path, survey: Survey, *, title: str) -> Iterator[tuple[int, Session]]:
    """Position and session of all that the survey has seen.

    Raises:
        UserError: When the file holds others now.
    """
    sessions = read_jsonl(input_file, Session, unique_key="session_id", report=ReadReport(), quiet=True)
    position = -1
    for position, session in enumerate(progress(sessions, title=title, total=len(survey.ids), unit="sessions")):
        if position >= len(survey.ids) or session.session_id != survey.ids[position]:
            break
        yield position, session
    else:
        if position + 1 == len(survey.ids):
            return
    raise UserError(f"IN {input_file}: changed while it was read; run it again")


def _apply_judgements(survey: Survey, judge: JudgeSettings) -> int:
    """Drops what the judge finds too little in.

    Returns:
        How many sessions stay because it gave no readable answer.
    """
    scores = read_judgements(judge.judgements_file)
    not_judged = 0
    for position, session_id in enumerate(survey.ids):
        if not survey.kept(position):
            continue
        score = score_of(scores, session_id, file=judge.judgements_file)
        if score is None:
            not_judged += 1
        elif score < judge.least:
            survey.judged[position] = score
            survey.drop(position, "judge")
    return not_judged


def _examples(input_file: Path, survey: Survey, examiner: Examiner) -> dict[str, list[Example]]:
    """Reason -> some sessions that were dropped for it, always the same ones."""
    rng = random.Random(0)
    chosen: dict[int, str] = {}
    for reason in REASONS:
        positions = survey.positions(reason)
        chosen.update(dict.fromkeys(rng.sample(positions, min(EXAMPLES, len(positions))), reason))
    examples: dict[str, list[Example]] = {}
    for position, session in _again(input_file, survey, title="choosing examples"):
        if reason := chosen.get(position, ""):
            said = survey.said(position, examiner.examine(session))
            example = example_of(session, said, mask=lambda beginning: examiner.mask(beginning)[0])
            examples.setdefault(reason, []).append(example)
    return examples


def _report(
    input_file: Path,
    survey: Survey,
    speakers: Speakers,
    *,
    stated: list[Reason],
    examples: dict[str, list[Example]],
    remarks: list[tuple[str, object]],
) -> CurationReport:
    """All that the page shows."""
    kept = [survey.kept(position) for position in range(len(survey.ids))]
    dropped = survey.dropped()
    before = Counter(survey.diagnoses)
    after = Counter(number for number, stays in zip(survey.diagnoses, kept, strict=True) if stays)
    names, called = list(survey.diagnosis_names), speakers.model_dump()
    return CurationReport(
        source=str(input_file),
        speakers=called,
        before=len(kept),
        after=sum(kept),
        remarks=remarks,
        reasons=[
            ReasonReport(
                key=reason.key,
                title=reason.title,
                threshold=reason.threshold,
                dropped=dropped[reason.key],
                examples=examples.get(reason.key, []),
            )
            for reason in stated
        ],
        distributions=[
            distribution(title.format(**called), survey.figures[name], kept) for name, title in FIGURES.items()
        ],
        diagnoses=[(names[number], count, after[number]) for number, count in before.most_common(_DIAGNOSES)],
        more_diagnoses=max(0, len(names) - _DIAGNOSES),
    )
