"""Steps A and B stream: memory does not grow with the number of sessions; a full disk loses nothing."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tuner" / "learn_to_ask" / "data_prepare"
SAMPLE = ROOT / "tuner" / "learn_to_ask" / "sample_data" / "train_origin.jsonl"


def write_sessions(path, count):
    lines = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps({**lines[number % len(lines)], "session_id": number}) + "\n")


def run(script, *flags):
    """Exit code and output of a numbered script, and the most memory it held, in MiB."""
    return run_python(SCRIPTS / script, *flags)


def run_python(*arguments):
    """The same of any command of Python."""
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, output, usage.ru_maxrss / 1024


@pytest.mark.slow
def test_a_hundred_thousand_sessions_take_no_more_memory_than_a_thousand(tmp_path):
    peaks = {}
    for count in (1_000, 100_000):
        logs, samples, tasks = (tmp_path / f"{name}_{count}.jsonl" for name in ("logs", "samples", "tasks"))
        write_sessions(logs, count)
        flags = ("--engine", "offline", "--input_file", logs, "--output_file", samples)
        code, output, peak_a = run("1_info_extract_pipeline.py", *flags)
        assert code == 0, output
        code, output, peak_b = run("2_build_dataset.py", "--input_file", samples, "--output_file", tasks)
        assert code == 0, output
        peaks[count] = (peak_a, peak_b)
        samples.unlink()

    # What may grow: the hashes that find duplicates (up to 20 bytes a record) and the journal's offsets (8 bytes).
    assert peaks[100_000][0] - peaks[1_000][0] < 25
    assert peaks[100_000][1] - peaks[1_000][1] < 35


def write_table(path, count):
    """A message in each row, the sessions of a hundred at a time one after the other's messages."""
    with path.open("w") as file:
        file.write("session_id,role,content\n")
        for start in range(0, count, 100):
            for role in ("user", "assistant", "user", "assistant"):
                file.writelines(f"{number},{role},{'hm ' * 20}\n" for number in range(start, start + 100))


@pytest.mark.slow
def test_a_table_of_fifty_thousand_sessions_takes_no_more_memory_than_one_of_a_thousand(tmp_path):
    peaks = {}
    for count in (1_000, 50_000):
        table, logs = tmp_path / f"{count}.csv", tmp_path / f"{count}.jsonl"
        write_table(table, count)
        module = "tuner.learn_to_ask.data_prepare.convert"
        code, output, peaks[count] = run_python("-m", module, "--from", "table", table, logs)
        assert (code, len(logs.read_text().splitlines())) == (0, count), output

    assert peaks[50_000] - peaks[1_000] < 25


def test_a_full_disk_is_one_clear_line_and_resumable(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        output_file = disk / "samples.jsonl"
        flags = ("--engine", "offline", "--input_file", SAMPLE, "--output_file", output_file)
        code, output, _ = run("1_info_extract_pipeline.py", *flags)

        assert code == 2
        assert "No space left on device" in output
        assert "Traceback" not in output
        assert not output_file.exists()

        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        code, output, _ = run("1_info_extract_pipeline.py", *flags, "--resume")
        assert code == 0, output
        resumed = output_file.read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    run("1_info_extract_pipeline.py", *flags[:-1], tmp_path / "undisturbed.jsonl")
    assert resumed == (tmp_path / "undisturbed.jsonl").read_bytes()


def test_a_session_of_ten_thousand_turns_is_segmented_one_sample_at_a_time():
    from tuner.learn_to_ask.core.records import Session
    from tuner.learn_to_ask.core.segmentation import segment

    turns = [{"role": "user" if turn % 2 == 0 else "assistant", "content": "hm"} for turn in range(10_000)]
    session = Session(session_id="long", diagn=None, messages=turns)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    count = sum(1 for _ in segment(session))

    assert count == 5_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
