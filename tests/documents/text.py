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
