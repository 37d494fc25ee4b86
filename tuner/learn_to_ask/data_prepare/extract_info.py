"""Step A: segments sessions and has an LLM extract what each future reveals (spec section 3)."""

import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, progress
from tuner.learn_to_ask.core.domain import Domain, stop_token_in_log
from tuner.learn_to_ask.core.labels import decision_truth, parse_info_set
from tuner.learn_to_ask.core.records import Sample, Session
from tuner.learn_to_ask.core.segmentation import segment, turn_indices
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.job import JobSettings, is_complete, open_job
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, require_input
from tuner.learn_to_ask.prompt import extraction_messages, extraction_prompt
from tuner.learn_to_ask.shards import Shard, check_same_shard, in_shard, note_shard

EXTRACTOR_SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=512, repetition_penalty=1.1)


def extract_info(
    *,
    input_file: Path,
    output_file: Path,
    settings: JobSettings,
    sampling: Sampling = EXTRACTOR_SAMPLING,
    domain: Domain,
    shard: Shard | None = None,
    strict: bool,
) -> int:
    """Writes a `Sample` for every point where the doctor speaks next.

    A future in which the patient says nothing more holds nothing to extract; it gets `[]` without asking
    the engine. Where no answer can be used, `info_set` is `None`. One long function, because requests and answers share
    what is under way.

    Args:
        input_file: Sessions.
        output_file: Samples, in input order, once all are done.
        settings: Of the extractor.
        sampling: Of the extractor.
        domain: Its texts and fields.
        shard: Of the sessions; all without.
        strict: A bad line is an error instead of skipped.

    Returns:
        The exit code.
    """
    require_input(input_file, "--input_file")
    if settings.resume:
        check_same_shard(output_file, "--output_file", shard)
    if is_complete(output_file, "--output_file", settings):
        return EXIT_DONE
    report = ReadReport()
    total = count_lines(input_file)  # a compressed file that is cut off is noticed here, before anything is paid for
    waiting: dict[int, Sample] = {}
    count = asked = without = sessions = 0
    dropped: Counter[str] = Counter()
    depends_on = {
        "input": file_digest(input_file),
        "sampling": str(sampling),
        "prompt": text_digest(extraction_prompt(domain)),
        "fields": text_digest(domain.information.model_dump_json()),
        **(shard.setting if shard else {}),
    }
    with open_job(output_file, settings, depends_on=depends_on) as job:

        def requests() -> Iterator[Request]:
            nonlocal count, asked, sessions
            for session in _sessions(input_file, domain, report, total=total, strict=strict):
                if not in_shard(session.session_id, shard):
                    continue
                sessions += 1
                dropped.update(session.dropped)
                samples = sum(1 for _ in turn_indices(session.messages))
                if all(map(job.journal.done, range(count, count + samples))):  # on resume: on to the first that is not
                    count += samples
                    continue
                for sample in segment(session):
                    index, count = count, count + 1
                    if job.journal.done(index):
                        continue
                    if decision_truth(sample.remaining_chat) == "stop":
                        job.journal.append(index, sample.model_copy(update={"info_set": []}))
                        continue
                    if not job.stopped:
                        waiting[index] = sample
                    asked += 1
                    yield Request(index, extraction_messages(sample.remaining_chat, domain))

        for answer in job.ask(requests(), sampling=sampling, parse=partial(_parse, domain=domain)):
            sample = waiting.pop(answer.key).model_copy(update={"info_set": answer.value})
            job.journal.append(answer.key, sample, failed=answer.value is None)
            without += answer.value == []
        if not report.good:
            wanted = "one JSON object a line is wanted; the lines above say why"
            raise UserError(f"--input_file {input_file}: holds no usable session, {wanted}")
        job.check_not_all_failed(of=asked)
        note_shard(job.journal, shard, Sample)
        written = job.journal.finish(count, Sample)

    rows: list[tuple[str, object]] = [("sessions", sessions), *report.skipped_rows]
    rows += [("shard", f"{shard}, of {report.good} sessions")] if shard else []
    rows += [(f"dropped: {reason}", messages) for reason, messages in sorted(dropped.items())]
    rows.append(("samples", written))
    if job.usage.answered:
        rows.append(("continue, nothing found", f"{without} of {job.usage.answered}"))
    job.print_summary(f"extracted: {output_file}", rows, role="engine")
    if without > job.usage.answered / 2:
        print(
            f"warning: in {without} of {job.usage.answered} futures in which the patient goes on, nothing was found; "
            "script 2 drops them, which tilts the set towards stop: look at some, or take a stronger extractor",
            file=sys.stderr,
        )
    return job.exit_code(failed=job.journal.failed, of=count, report=report)


def _sessions(input_file: Path, domain: Domain, report: ReadReport, *, total: int, strict: bool) -> Iterator[Session]:
    """The sessions of a file, under a progress bar.

    Raises:
        UserError: For the first that holds the stop token.
    """
    sessions = read_jsonl(input_file, Session, unique_key="session_id", report=report, strict=strict)
    for session in progress(sessions, title="extracting", total=total, unit="sessions"):
        if domain.stops_in(session.messages):
            raise UserError(f"--input_file {input_file}: session {session.session_id!r}: {stop_token_in_log(domain)}")
        yield session


def _parse(texts: list[str], domain: Domain) -> list[str] | None:
    """The items in the extractor's answer."""
    return parse_info_set(texts[0], domain.information)
