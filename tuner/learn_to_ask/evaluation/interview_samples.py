"""Which sessions of a file can be asked in an interview, and why the others cannot."""

from collections import Counter
from pathlib import Path

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.core.domain import Domain, stop_token_in_log
from tuner.learn_to_ask.core.records import Sample
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.patient import is_first_of_session, items_of
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl
from tuner.learn_to_ask.shards import Shard, in_shard


def askable_samples(
    test_file: Path,
    domain: Domain,
    *,
    place: str,
    shard: Shard | None,
    report: ReadReport,
    left_out: Counter[str],
    strict: bool,
) -> list[Sample]:
    """The first sample of every session of a shard that holds facts; counts why others are left out.

    Raises:
        UserError: When none is left of a whole file, or a log holds the stop token.
    """
    first: dict[str, Sample] = {}
    samples = read_jsonl(test_file, Sample, unique_key="cid", report=report, strict=strict)
    for sample in progress(samples, title="reading", total=count_lines(test_file), unit="samples"):
        if not in_shard(sample.session_id, shard):
            continue
        before = first.get(sample.session_id)
        if before is None or len(sample.messages) < len(before.messages):
            first[sample.session_id] = sample
    usable = []
    for sample in first.values():
        if domain.stops_in(sample.messages) or domain.stops_in(sample.remaining_chat):
            raise UserError(f"{place}: cid {sample.cid!r}: {stop_token_in_log(domain)}")
        if why := _why_left_out(sample):
            left_out[why] += 1
        else:
            usable.append(sample)
    if not usable and not (shard and report.good):
        why = ", ".join(f"{reason} ({sessions})" for reason, sessions in sorted(left_out.items()))
        wanted = why or "one JSON object a line is wanted, a sample of 1_info_extract_pipeline.py"
        raise UserError(f"{place}: holds no session that can be asked: {wanted}")
    return usable


def _why_left_out(sample: Sample) -> str:
    """Why a session cannot be asked, `""` when it can."""
    if not is_first_of_session(sample):
        return "its first sample is missing"
    if sample.info_set is None:
        return "its extraction failed"
    return "" if items_of(sample) else "without facts"
