"""README.md and deploy/: every command is run by a test, every link leads somewhere."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, blocks, commands
from tests.support import ROOT

RUN_BY_CI = ("README.md", "Development")
"""The command that starts these tests, which none of them can run: `.ci/run` takes it out of the README."""


def taken() -> set[tuple[str, str]]:
    """The documents and headings whose blocks some test takes by `commands`."""
    calls = [
        [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "commands"
    ]
    return {(document, heading) for document, heading in filter(None, calls)} | {RUN_BY_CI}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_commands_is_taken_by_a_test(document: Path) -> None:
    found = {(str(document.relative_to(ROOT)), heading) for heading, _ in blocks(document)}
    assert found <= taken()


def test_the_command_that_starts_the_tests_is_the_one_that_ci_runs() -> None:
    (line,) = re.findall(r"^command=\$\((.*)\)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    taken_by_ci = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [taken_by_ci] == commands(*RUN_BY_CI)


RUN_ELSEWHERE = {"demo --faults", "python -m app.simulator --help"}
"""Commands in no block, which tests/documents/test_first_look.py and tests/simulator/test_main.py run."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_within_a_sentence_is_also_in_a_block(document: Path) -> None:
    """Those of docker and kubectl aside, which need not be typed as they are."""
    typed = "".join(block for path in DOCUMENTS for _, block in blocks(path))
    pattern = r"`((?:python -m|\.venv/bin/python|mysql|recover|history|demo) [^`]+)`"
    for command in re.findall(pattern, document.read_text(encoding="utf-8")):
        with_names = re.sub(r"\bDIR\b", "output", command).replace("FILE", "-")
        assert with_names in typed or command in RUN_ELSEWHERE


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")):
        path = (document.parent / target) if target else document
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_readme_can_be_read_in_ten_minutes() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]
