"""The three scripts in another domain than the medical one, and what they refuse there."""

import pytest
from run_scripts import SESSION, TASK, build, error_of, evaluate, extract, read, write

from tuner.learn_to_ask.core.records import GradedTask, TaskWithRollouts
from tuner.learn_to_ask.domains import FOLDER, load_domain
from tuner.learn_to_ask.sample_data.generate import generate_sessions

SUPPORT = load_domain("it_support")


@pytest.mark.parametrize("name", ["it_support", "medical_zh"])
def test_scripts_1_and_2_make_tasks_of_a_domains_sample_logs(name, tmp_path):
    domain = load_domain(name)
    write(tmp_path / "in.jsonl", *generate_sessions(domain, count=24, first_id=1, seed=0))
    assert extract(tmp_path, "--domain", name).returncode == 0
    (tmp_path / "out.jsonl").rename(tmp_path / "in.jsonl")
    assert build(tmp_path, "--domain", name).returncode == 0

    tasks = read(tmp_path / "out.jsonl")
    assert {task["decision_truth"] for task in tasks} == {"continue", "stop"}
    fields = {field.name for field in domain.information.fields}
    items = [task["info_truth"].partition(": ")[0] for task in tasks if task["decision_truth"] == "continue"]
    assert items and set(items) <= fields


def test_step_b_refuses_samples_whose_information_is_of_another_domain(tmp_path):
    write(tmp_path / "in.jsonl", *generate_sessions(SUPPORT, count=24, first_id=1, seed=0))
    extract(tmp_path, "--domain", "it_support")
    (tmp_path / "out.jsonl").rename(tmp_path / "in.jsonl")
    error = error_of(build(tmp_path))
    assert "items of information are of fields that domain medical_en does not have, such as" in error
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("step", "good"), [(extract, SESSION), (evaluate, TASK)])
def test_a_dialogue_that_holds_the_stop_token_is_refused(step, good, tmp_path):
    quoted = [*good["messages"][:-1], {**good["messages"][-1], "content": "type <ticket /> he said"}]
    write(tmp_path / "in.jsonl", {**good, "messages": quoted})
    error = error_of(step(tmp_path, "--domain", "it_support"))
    assert "the dialogue holds '<ticket />', the stop token of domain it_support" in error
    assert "35310" in error


@pytest.mark.parametrize(("step", "good"), [(extract, SESSION), (build, None), (evaluate, TASK)])
def test_a_domain_that_does_not_exist_is_told_before_anything_is_read(step, good, tmp_path):
    error = error_of(step(tmp_path, "--domain", "it_suport"))
    assert error == "--domain it_suport: no such file; did you mean it_support?"


def test_the_offline_rules_are_refused_where_a_domain_has_no_vocabulary(tmp_path):
    starter = (FOLDER / "starter.txt").read_text(encoding="utf-8").replace("NAME", "bikes")
    (tmp_path / "bikes.yaml").write_text(starter, encoding="utf-8")
    write(tmp_path / "in.jsonl", SESSION)
    error = error_of(extract(tmp_path, "--domain", "bikes.yaml"))
    assert error.startswith("domain bikes: has no vocabulary")
    assert "name a model instead of the offline engine" in error
    assert not (tmp_path / "out.jsonl").exists()


def graded(stop, domain):
    """A task at its end with one rollout, graded in a domain."""
    task = {**TASK, "decision_truth": "stop", "info_truth": "", "rollouts": [stop]}
    return TaskWithRollouts.model_validate({**task, "domain": domain.of_record.model_dump()})


def test_a_stop_is_what_the_domain_says(tmp_path):
    write(tmp_path / "in.jsonl", {**TASK, "decision_truth": "stop", "info_truth": ""})
    write(tmp_path / "out.jsonl", graded("<ticket />", SUPPORT).model_dump())
    done = evaluate(tmp_path, "--domain", "it_support", "--resume", "--rollout_repeat", "1")
    assert done.returncode == 0, done.stderr
    [stops] = [row for row in done.stdout.splitlines() if "stop decision accuracy" in row]
    assert stops.split()[-1] == "1.000"
    [line] = read(tmp_path / "eval.jsonl")
    assert GradedTask.model_validate(line).grades[0].format_score == 1.0


def test_rollouts_are_not_graded_by_the_texts_of_another_domain(tmp_path):
    write(tmp_path / "in.jsonl", {**TASK, "decision_truth": "stop", "info_truth": ""})
    write(tmp_path / "out.jsonl", graded("<ticket />", SUPPORT).model_dump())
    error = error_of(evaluate(tmp_path, "--resume", "--rollout_repeat", "1"))
    assert "--domain medical_en: the rollouts of cid '35310_1' are of domain it_support" in error
