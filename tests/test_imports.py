"""The house's rules, over the real import graph: what may depend on what, and that nothing goes in circles."""

import ast
from pathlib import Path

import grimp
import pytest

PACKAGE = "tuner.learn_to_ask"
FOLDER = Path(__file__).parents[1] / "tuner" / "learn_to_ask"
LONGEST_FILE = 350
LONGEST_FUNCTION = 60


@pytest.fixture(scope="module")
def graph():
    """Imports inside functions and under TYPE_CHECKING count as well."""
    return grimp.build_graph("tuner", exclude_type_checking_imports=False, cache_dir=None)


def room(module):
    """The folder of a module; the module itself where it lies at the top."""
    parts = module.removeprefix(f"{PACKAGE}.").split(".")
    return parts[0]


def edges(graph):
    ours = {module for module in graph.modules if module.startswith(f"{PACKAGE}.")}
    return {(module, other) for module in ours for other in graph.find_modules_directly_imported_by(module) & ours}


def circle(arrows):
    """Nodes from which one comes back to oneself, found by taking away what nothing is left to lead to."""
    arrows = {(start, end) for start, end in arrows if start != end}
    while True:
        starts = {start for start, _ in arrows}
        kept = {(start, end) for start, end in arrows if end in starts}
        if kept == arrows:
            return sorted(starts)
        arrows = kept


def test_a_circle_is_found_wherever_it_is():
    assert circle({("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")}) == ["a", "b", "c"]
    assert circle({("a", "b"), ("b", "c"), ("a", "c")}) == []


def test_no_modules_import_each_other_in_a_circle(graph):
    assert circle(edges(graph)) == []


def test_no_folders_import_each_other_in_a_circle(graph):
    assert circle({(room(start), room(end)) for start, end in edges(graph)}) == []


def test_the_core_imports_nothing_of_the_project_outside_itself(graph):
    assert {end for start, end in edges(graph) if room(start) == "core" and room(end) != "core"} == set()


def test_the_core_imports_no_framework(graph):
    # pydantic describes the records, json_repair reads what models write, snowballstemmer cuts endings off words; the
    # rest is Python's own.
    allowed = {"json_repair", "pydantic", "snowballstemmer", "typing_extensions"}
    third_party = set()
    for file in (FOLDER / "core").glob("*.py"):
        third_party |= {name.partition(".")[0] for name in imported_names(file)}
    assert third_party - allowed - set(__import__("sys").stdlib_module_names) == {"tuner"}


def imported_names(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_nothing_imports_main(graph):
    assert {start for start, end in edges(graph) if end == f"{PACKAGE}.main"} == set()


@pytest.mark.parametrize("stage", ["report", "evaluation"])
def test_report_and_evaluation_do_not_need_the_training(stage, graph):
    assert {end for start, end in edges(graph) if room(start) == stage and room(end) == "training"} == set()


@pytest.mark.parametrize("script", sorted((FOLDER / "data_prepare").glob("[0-9]*.py")), ids=lambda path: path.name)
def test_the_numbered_scripts_do_not_need_the_training(script):
    # Their names are no identifiers, so that the graph leaves them out.
    assert not any(name.startswith((f"{PACKAGE}.training", f"{PACKAGE}.main")) for name in imported_names(script))


def test_no_import_of_the_project_hides_under_type_checking():
    hidden = []
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                inside = [each for each in ast.walk(node) if isinstance(each, ast.ImportFrom)]
                hidden += [f"{file.name}: {each.module}" for each in inside if each.module.startswith(PACKAGE)]
    assert hidden == []


def test_a_file_over_350_lines_is_two():
    sizes = {str(file.relative_to(FOLDER)): len(file.read_text().splitlines()) for file in FOLDER.rglob("*.py")}

    assert {name for name, lines in sizes.items() if lines > LONGEST_FILE} == set()


def test_a_function_over_60_lines_says_why():
    unexplained = []
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - said.count("\n")
                if lines > LONGEST_FUNCTION and "long" not in said:
                    unexplained.append(f"{file.name}: {node.name}, {lines} lines")
    assert unexplained == []
