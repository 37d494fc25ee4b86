"""Step A over the `openai` engine: faults, a server that dies, a run that is killed 20 times."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from zlib import crc32

import pytest
from fault_server import (
    CUT,
    GOOD,
    INVALID_JSON,
    NO_CHOICES,
    Fault,
    FaultServer,
    http_error,
)
from medical import MEDICAL, extract_answer
from openai_runs import KEY, REPOSITORY

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.data_prepare.extract_info import extract_info
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.prompt import extraction_messages


def write_sessions(path, count):
    """Sessions of three rounds; no two contexts or futures are the same."""
    with path.open("w") as file:
        for case in range(count):
            messages = []
            for turn, complaint in enumerate(
                ("i have diarrhea", "i threw up once", "my head hurts", "only the left half")
            ):
                messages.append({"role": "user", "content": f"{complaint}, case {case}.{turn}"})
                messages.append({"role": "assistant", "content": f"anything else about {case}.{turn}?"})
            file.write(json.dumps({"session_id": case, "diagn": "d", "messages": messages}) + "\n")


def prompts(path):
    """Index -> the last message of the extraction request."""
    sessions = (Session.model_validate_json(line) for line in path.read_text().splitlines())
    samples = (sample for session in sessions for sample in segment(session))
    return [extraction_messages(sample.remaining_chat)[-1]["content"] for sample in samples]


def extract(input_file, output_file, engine, *, resume=False):
    """Step A, its exit code."""
    try:
        return extract_info(
            input_file=input_file,
            output_file=output_file,
            settings=JobSettings(
                make_engine=lambda: engine, max_retries=2, max_failures=0.0, resume=resume, overwrite=False
            ),
            domain=MEDICAL,
            strict=True,
        )
    finally:
        engine.close()


def faulty(call):
    """A plan by the prompt alone, so that it is the same in every order: one in three first tries fails."""
    faults = (http_error(429, "slow", Retry_After="0"), http_error(500), http_error(502), CUT, INVALID_JSON, NO_CHOICES)
    number = crc32(call.text.encode()) % 18
    return faults[number] if number < len(faults) and not faulty.tried.add_and_tell(call.text) else Fault(delay=0.01)


class _Seen(set):
    """Texts that came before."""

    def add_and_tell(self, text):
        seen = text in self
        self.add(text)
        return seen


@pytest.fixture
def undisturbed(tmp_path):
    """The input, and what an undisturbed run makes of it."""
    faulty.tried = _Seen()
    write_sessions(tmp_path / "in.jsonl", 60)
    assert extract(tmp_path / "in.jsonl", tmp_path / "expected.jsonl", OfflineEngine(extract_answer)) == 0
    return tmp_path / "in.jsonl", (tmp_path / "expected.jsonl").read_bytes()


def test_given_a_faulty_server_when_step_a_runs_then_the_output_is_that_of_an_undisturbed_run(
    make_engine, undisturbed, tmp_path, capsys
):
    input_file, expected = undisturbed
    with FaultServer(faulty, answer=extract_answer) as server:
        assert extract(input_file, tmp_path / "out.jsonl", make_engine(server, concurrency=8)) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert server.max_in_flight <= 8
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err


def test_given_a_server_that_dies_when_step_a_resumes_then_nothing_was_given_up(make_engine, undisturbed, tmp_path):
    input_file, expected = undisturbed
    output = tmp_path / "out.jsonl"
    with FaultServer(lambda call: GOOD if call.index < 50 else http_error(500), answer=extract_answer) as server:
        port = server.port
        with pytest.raises(UserError, match="--resume"):
            extract(input_file, output, make_engine(server))
    journal = (tmp_path / "out.jsonl.journal").read_text()
    assert '"info_set": null' not in journal
    with FaultServer(answer=extract_answer) as server:
        engine = make_engine(server)
        engine.description = engine.description.replace(str(server.port), str(port))
        assert extract(input_file, output, engine, resume=True) == 0
    assert output.read_bytes() == expected
    assert server.received < 180 - 40


def test_given_a_server_that_dies_when_step_a_resumes_then_another_one_beside_it_finishes_what_it_began(
    make_engine, undisturbed, tmp_path
):
    input_file, expected = undisturbed
    output = tmp_path / "out.jsonl"
    plan = lambda call: GOOD if call.index < 50 else http_error(401)  # noqa: E731
    with FaultServer(plan, answer=extract_answer) as first, pytest.raises(UserError, match="--resume"):
        extract(input_file, output, make_engine(first))
    # The first does not run any more; it still names the run.
    with FaultServer(answer=extract_answer) as second:
        engine = make_engine(f"{first.base_url} {second.base_url}")
        assert extract(input_file, output, engine, resume=True) == 0
    assert output.read_bytes() == expected
    assert second.received <= 180 - 50 + 1  # and the question of our own


def test_given_two_servers_of_which_one_dies_when_step_a_runs_then_the_output_is_that_of_an_undisturbed_run(
    make_engine, undisturbed, tmp_path
):
    input_file, expected = undisturbed
    dying = lambda call: GOOD if call.index < 20 else CUT  # noqa: E731
    with FaultServer(faulty, answer=extract_answer) as first, FaultServer(dying, answer=extract_answer) as second:
        engine = make_engine(f"{first.base_url} {second.base_url}", backoff_base=0.01)
        assert extract(input_file, tmp_path / "out.jsonl", engine) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == expected


DRIVER = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from test_openai_step_a import extract
from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine
engine = OpenAIEngine(Endpoint(base_url=sys.argv[2], model="m", backoff_base=0.001), concurrency=8)
sys.exit(extract(Path(sys.argv[3]), Path(sys.argv[4]), engine, resume=True))
"""


def journaled(path):
    """Indices of the complete lines of a journal."""
    lines = path.read_bytes().split(b"\n")[1:-1] if path.exists() else []
    return {json.loads(line)["index"] for line in lines}


@pytest.mark.slow
def test_given_20_kills_when_resumed_each_time_then_the_output_is_right_and_nothing_finished_is_sent_again(
    undisturbed, tmp_path
):
    input_file, expected = undisturbed
    texts = prompts(input_file)
    output = tmp_path / "out.jsonl"
    journal = tmp_path / "out.jsonl.journal"
    chance = random.Random(3)
    unsettled = 0
    with FaultServer(faulty, answer=extract_answer) as server:
        places = (REPOSITORY, REPOSITORY / "tests" / "helpers", REPOSITORY / "tests" / "engines")
        command = [sys.executable, "-c", DRIVER, ":".join(map(str, places)), server.base_url]
        command += [str(input_file), str(output)]
        for _ in range(20):
            before, first = journaled(journal), server.received
            moment = first + chance.randint(1, 12)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            server.wait_until(lambda server, moment=moment: server.received >= moment)
            time.sleep(chance.uniform(0, 0.01))  # any moment within an answer
            process.kill()
            assert process.wait() == -signal.SIGKILL
            server.wait_until(lambda server: server.in_flight == 0)
            assert not {call.text for call in server.calls[first:]} & {texts[index] for index in before}
            paid = {call.text for call in server.calls[first:] if call.answered}
            lost = paid - {texts[index] for index in journaled(journal)}
            assert len(lost) <= 8, "a kill loses no more than what was under way"
            unsettled += len(lost)
        before, first = journaled(journal), server.received
        assert 20 < len(before) < len(texts), "the kills must hit unfinished runs"
        assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
        assert not {call.text for call in server.calls[first:]} & {texts[index] for index in before}
    assert output.read_bytes() == expected
    assert not journal.exists()
    good = Counter(call.text for call in server.calls if call.answered)
    assert sum(good.values()) - len(good) <= unsettled
