"""A domain is one YAML file: what it changes, what the default keeps, and what is wrong with a bad one."""

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from medical import MEDICAL

from tuner.learn_to_ask import prompt
from tuner.learn_to_ask.core.labels import parse_info_set
from tuner.learn_to_ask.domains import FOLDER, load_domain, shipped
from tuner.learn_to_ask.errors import UserError

# Of the prompts as they were written in Python, before there were domains.
DIGESTS = {
    "rollout_prompt_med": "eeb015a3c9247192",
    "rollout_prompt_med_Ra": "3106aa3266b5b1d3",
    "reward_prompt_med": "a8242f68d7d3e705",
    "info_extract_prompt": "e31136e6f4213e0a",
}


@pytest.mark.parametrize(("name", "digest"), DIGESTS.items())
def test_the_medical_prompts_are_byte_for_byte_what_they_were(name, digest):
    assert hashlib.sha256(getattr(prompt, name).encode()).hexdigest()[:16] == digest


def test_a_prompt_that_was_never_published_is_no_name_of_the_module():
    with pytest.raises(AttributeError, match="reward_prompt_dental"):
        _ = prompt.reward_prompt_dental


def changed(tmp_path, **changes):
    """The medical file with some keys changed; `None` takes a key away."""
    content = yaml.safe_load((FOLDER / "medical_en.yaml").read_text(encoding="utf-8"))
    content["vocabulary"] = str(FOLDER / content["vocabulary"])
    for dotted, value in changes.items():
        place = content
        *parents, last = dotted.split("__")
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return str(file)


def problem_of(name):
    with pytest.raises(UserError) as error:
        load_domain(name)
    said = str(error.value)
    assert "\n" not in said
    return said.removeprefix(f"--domain {name}: ")


LEVEL = {"score": 1.0, "when": "it fits"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stop_tokn": "x"}, "stop_tokn is no key of a domain, did you mean stop_token?"),
        ({"grading__formt": "x"}, "grading.formt is no key of a domain, did you mean format?"),
        ({"information__fields": [{"nam": "x"}]}, "information.fields.0.nam is no key of a domain, did you mean name?"),
        ({"qqqq": "x"}, "qqqq is no key of a domain, there are name, language, or_word, speakers, stop_token"),
        ({"policy": None}, "policy is missing"),
        ({"grading__content__levels": []}, "grading.content.levels: a rubric needs at least two levels, each with"),
        ({"grading__content__levels": [LEVEL, LEVEL]}, "grading.content.levels: two levels have the same score"),
        ({"grading__format__levels": [LEVEL, {"score": 7, "when": "x"}]}, "grading.format.levels.1.score: "),
        (
            {"policy__stop": "Say goodbye."},
            "policy.stop: has to tell the policy what to output: write {stop_token}",
        ),
        (
            {"policy__task": "Help {patient}."},
            "policy.task: {patient} stands for nothing; there are {user}, {assi",
        ),
        ({"speakers__user": "doctor"}, "speakers: both sides are called 'doctor', a grader could not tell them apart"),
        ({"information__fields": []}, "information.fields: "),
        ({"vocabulary": "no.yaml"}, "vocabulary: "),
        ({"name": "my domain"}, "name: "),
    ],
)
def test_a_mistake_in_a_domain_file_is_one_line_that_names_the_key(changes, said, tmp_path):
    assert said in problem_of(changed(tmp_path, **changes))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"name: [", "is no YAML: "), (b"- a\n- b", "holds no keys"), (b"\xff\xfe\xfa", "cannot be read: ")],
)
def test_a_file_that_is_no_domain_is_one_line(content, said, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert said in problem_of(str(file))


def test_a_name_that_is_nearly_right_is_told():
    assert problem_of("medical_enn") == "no such file; did you mean medical_en?"
    assert problem_of("zzz.yaml").startswith("no such file; name a YAML file or one of it_support, medical_en,")


def test_another_stop_token_and_other_speakers_stand_in_every_prompt(tmp_path):
    changes = {"stop_token": "[DONE]", "speakers": {"user": "caller", "assistant": "nurse"}, "name": "triage"}
    domain = load_domain(changed(tmp_path, **changes))
    assert "output only [DONE] and nothing else" in prompt.rollout_prompt("Ra+Rs", domain)
    assert '"caller:" or "nurse:"' in prompt.reward_prompt(domain)
    assert '"caller:" or "nurse:"' in prompt.extraction_prompt(domain)
    dialogue = [{"role": "user", "content": "it hurts"}, {"role": "assistant", "content": "where?"}]
    assert prompt.dialogue_lines(dialogue, domain) == "caller: it hurts\nnurse: where?"
    assert prompt.rollout_prompt("Ra+Rs", MEDICAL) == prompt.rollout_prompt("Ra+Rs")


def test_more_levels_of_a_rubric_are_more_lines_and_more_scores_to_choose_from(tmp_path):
    levels = [{"score": score, "when": f"it is {score}"} for score in (1.0, 0.75, 0.25, 0.0)]
    text = prompt.reward_prompt(load_domain(changed(tmp_path, grading__content__levels=levels)))
    assert "  0.75  it is 0.75\n  0.25  it is 0.25\n" in text
    assert text.endswith("<content_score>1.0, 0.75, 0.25 or 0.0</content_score>")


@pytest.mark.parametrize("name", shipped())
def test_a_field_counts_under_its_name_synonyms_and_translations_and_no_other(name):
    information = load_domain(name).information
    first, *_ = information.fields
    assert parse_info_set(f'["{first.name}: x", "colour of the hat: y"]', information) == [f"{first.name}: x"]
    for synonym in first.synonyms:
        assert parse_info_set(f'["{synonym}: x"]', information) == [f"{synonym}: x"]
    for translation in first.translations:
        assert parse_info_set(f'["{translation}: x"]', information) == [f"{first.name}: x"]
    assert parse_info_set(f'["{first.name}: {information.vague[0]}"]', information) == []


# Functions that fall back to the medical domain when they are not told one: inside the package they always are.
TAKE_A_DOMAIN = {
    "rollout_prompt": 2,
    "dialogue_lines": 2,
    "grading_messages": 4,
    "extraction_messages": 2,
    "rollout_messages": 3,
    "ask_grader": 4,
    "reply_of_grader": 4,
    "try_grader": 3,
    "check_grader": 3,
    "scan_dataset": 2,
    "react_reply": 5,
    "ReactEngine": 3,
    "decision": 2,
    "needs_grader": 3,
    "grade": 4,
}


def test_inside_the_package_no_call_forgets_the_domain():
    forgetful = []
    for file in (Path(prompt.__file__).parent).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        known = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        known |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        for node in nodes:
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            if name in known & TAKE_A_DOMAIN.keys():
                named = {keyword.arg for keyword in node.keywords} & {"domain", "stop_token"}
                if not named and len(node.args) < TAKE_A_DOMAIN[name]:
                    forgetful.append(f"{file.name}:{node.lineno}: {ast.unparse(node)}")
    assert forgetful == []


def command(*arguments, cwd):
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-m", "tuner.learn_to_ask.domain", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_domain_is_written_with_comments_and_is_a_sound_one(tmp_path):
    assert command("new", "dental", cwd=tmp_path).returncode == 0
    assert (tmp_path / "dental.yaml").read_text(encoding="utf-8").count("\n# ") > 5
    shown = command("check", "dental.yaml", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--- grader ---" in shown.stdout
    again = command("new", "dental", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists; pass --overwrite to replace it" in again.stderr
