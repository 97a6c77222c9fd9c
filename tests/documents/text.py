"""The commands in README.md and deploy/, taken out of the text, so that the tests run what an operator types."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "deploy").rglob("*.md"))]


def commands(document: str, heading: str) -> list[str]:
    """The indented blocks under a heading, without those under the headings below it."""
    return [block for found, block in blocks(ROOT / document) if found == heading]


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Each indented block of a document, with the heading that it stands under. A blank line ends a block."""
    heading = ""
    for part in re.split(r"\n{2,}", document.read_text(encoding="utf-8")):
        if title := re.match(r"#+ (.*)", part):
            heading = title[1]
        elif part.startswith("    "):
            yield heading, textwrap.dedent(part) + "\n"


def table(document: str, title: str) -> list[list[str]]:
    """The cells of the table of a document whose first column has a title, row by row, without the titles."""
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)
    for lines in map(str.splitlines, tables):
        titles, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        if titles[0] == title:
            return rows
    raise LookupError(f"no table in {document} begins with {title!r}")
