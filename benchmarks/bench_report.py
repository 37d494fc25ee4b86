"""Seconds and memory of the report on synthetic evaluations, base against tuned.

python benchmarks/bench_report.py
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROLLOUTS = 3
DIAGNOSES = [f"diagnosis {number}" for number in range(40)]
PATIENT = "I have had a sore throat for three days, with a little fever and a cough that is worse at night."
DOCTOR = "How high was the fever at its highest: below 38 degrees, 38 to 39 degrees, or above 39 degrees?"
THINK = "The question asks for the severity of the fever, which the reference information names. " * 3


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[2_000, 100_000])
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]}")
    print("evaluations  samples each  MB read  seconds  peak MiB  report.html MB")
    for samples in arguments.samples:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            base, tuned = folder / "base.jsonl", folder / "tuned.jsonl"
            write_evaluation(base, samples, skill=0.4, seed=1)
            write_evaluation(tuned, samples, skill=0.8, seed=2)
            for files in ([base], [base, tuned]):
                seconds, memory = measure(files, folder / f"report_{len(files)}")
                read = sum(file.stat().st_size for file in files) / 1e6
                page = (folder / f"report_{len(files)}" / "report.html").stat().st_size / 1e6
                print(f"{len(files):11}  {samples:12,}  {read:7.1f}  {seconds:7.1f}  {memory:8.0f}  {page:14.1f}")


def measure(files: list[Path], output: Path) -> tuple[float, float]:
    """Seconds and peak memory in MiB of the real command."""
    command = [sys.executable, "-m", "tuner.learn_to_ask.report", *map(str, files), f"--output_dir={output}"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the report exited with {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def write_evaluation(path: Path, samples: int, *, skill: float, seed: int) -> None:
    """Sessions of 1 to 8 samples; the same tasks for every seed."""
    rng, tasks = random.Random(seed), random.Random(0)
    written = session = 0
    with path.open("w", encoding="utf-8") as file:
        while written < samples:
            turns = min(tasks.randint(1, 8), samples - written)
            diagnosis = DIAGNOSES[int(len(DIAGNOSES) * tasks.random() ** 2)]
            talent = min(1.0, max(0.0, rng.gauss(skill, 0.2)))
            for turn in range(turns):
                truth = "stop" if turn == turns - 1 else "continue"
                answers = [answer(rng, truth, talent) for _ in range(ROLLOUTS)]
                record = {
                    "cid": f"{session}_{2 * turn}",
                    "session_id": str(session),
                    "diagn": diagnosis,
                    "messages": [
                        {"role": "assistant" if index % 2 else "user", "content": DOCTOR if index % 2 else PATIENT}
                        for index in range(2 * turn + 1)
                    ],
                    "decision_truth": truth,
                    "info_truth": "symptom: fever, symptom severity: 38.5 degrees" if truth == "continue" else "",
                    "rollouts": [text for text, _ in answers],
                    "policy": f"synthetic:{skill}",
                    "grades": [grade for _, grade in answers],
                    "grader": "synthetic:grader",
                }
                file.write(json.dumps(record) + "\n")
            written += turns
            session += 1


def answer(rng: random.Random, truth: str, talent: float) -> tuple[str, dict[str, object]]:
    """A rollout and its grade."""
    right = rng.random() < 0.3 + 0.7 * talent
    stops = (truth == "stop") == right
    text = "<stop />" if stops else DOCTOR
    if not right:
        return text, {"think": "", "action_score": 0.0, "format_score": 0.0, "content_score": 0.0}
    if stops:
        return text, {"think": "", "action_score": 1.0, "format_score": 1.0, "content_score": 1.0}
    content = rng.choices([0.0, 0.5, 1.0], [1 - talent, 0.5, talent])[0]
    return text, {"think": THINK, "action_score": 1.0, "format_score": rng.choice([0.5, 1.0]), "content_score": content}


if __name__ == "__main__":
    main()
