"""README.md and deploy/: every command is run by a test, every link leads somewhere."""

import ast
import re
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, blocks
from tests.support import ROOT


def taken() -> set[tuple[object, ...]]:
    """The documents and headings whose blocks some test takes by `commands`."""
    return {
        tuple(argument.value for argument in node.args if isinstance(argument, ast.Constant))
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "commands"
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_commands_is_taken_by_a_test(document: Path) -> None:
    found = {(str(document.relative_to(ROOT)), heading) for heading, _ in blocks(document)}
    assert found <= taken()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")):
        path = (document.parent / target) if target else document
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_readme_can_be_read_in_ten_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
