"""Step A: segments sessions and has an LLM extract what each future reveals (spec section 3)."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary, progress
from tuner.learn_to_ask.data_prepare.resumable import resumable
from tuner.learn_to_ask.engines.base import Engine, Request, Sampling
from tuner.learn_to_ask.engines.retrying import Prices, Usage, ask
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input
from tuner.learn_to_ask.labels import decision_truth, parse_info_set
from tuner.learn_to_ask.prompt import extraction_messages, info_extract_prompt
from tuner.learn_to_ask.records import Sample, Session
from tuner.learn_to_ask.segmentation import segment

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=512, repetition_penalty=1.1)


def extract_info(
    *,
    input_file: Path,
    output_file: Path,
    make_engine: Callable[[], Engine],
    prices: Prices | None,
    max_retries: int,
    max_failures: float,
    strict: bool,
    resume: bool,
    overwrite: bool,
) -> int:
    """Writes a `Sample` for every point where the doctor speaks next.

    A future in which the patient says nothing more holds nothing to extract; it gets `[]` without asking
    the engine.

    Args:
        input_file: Sessions.
        output_file: Samples, in input order, once all are done.
        make_engine: Loads the extractor, called when the files have been checked.
        prices: Of the extractor, for the cost in the summary.
        max_retries: Fresh tries after an answer that does not parse; then `info_set` is `None`.
        max_failures: Share of samples without `info_set` that is still a success.
        strict: A bad line is an error instead of skipped.
        resume: Continue an unfinished run.
        overwrite: Replace finished output, drop an unfinished run.

    Returns:
        The exit code.
    """
    started = time.monotonic()
    require_input(input_file, "--input_file")
    if resume and output_file.exists():
        print(f"{output_file}: already complete")
        return EXIT_DONE
    check_output(output_file, "--output_file", overwrite=overwrite)
    report, usage = ReadReport(), Usage()
    waiting: dict[int, Sample] = {}
    count = 0
    with resumable(
        output_file,
        make_engine,
        depends_on={
            "input": file_digest(input_file),
            "sampling": str(SAMPLING),
            "prompt": text_digest(info_extract_prompt),
        },
        resume=resume,
        overwrite=overwrite,
    ) as (engine, journal):

        def requests() -> Iterator[Request]:
            nonlocal count
            sessions = read_jsonl(input_file, Session, unique_key="session_id", report=report, strict=strict)
            for session in progress(sessions, title="extracting", total=None, unit="sessions"):
                for sample in segment(session):
                    index, count = count, count + 1
                    if journal.done(index):
                        continue
                    if decision_truth(sample.remaining_chat) == "stop":
                        journal.append(index, sample.model_copy(update={"info_set": []}))
                        continue
                    waiting[index] = sample
                    yield Request(index, extraction_messages(sample.remaining_chat))

        answers = ask(
            engine,
            requests(),
            sampling=SAMPLING,
            parse=lambda texts: parse_info_set(texts[0]),
            max_tries=1 + max_retries,
            usage=usage,
        )
        for answer in answers:
            sample = waiting.pop(answer.key).model_copy(update={"info_set": answer.value})
            journal.append(answer.key, sample, failed=answer.value is None)
        if not report.good:
            raise UserError(f"--input_file {input_file}: holds no usable session; the lines above say why")
        written = journal.finish(count)

    print_summary(
        f"extracted: {output_file}",
        [
            ("sessions", report.good),
            *((f"skipped: {reason}", lines) for reason, lines in sorted(report.bad.items())),
            ("samples", written),
            *([("resumed", journal.resumed)] if journal.resumed else []),
            *usage.rows(prices),
            *engine.summary(),
            ("engine", engine.description),
        ],
        started=started,
    )
    return EXIT_FAILURES if journal.failed > max_failures * count else EXIT_DONE
