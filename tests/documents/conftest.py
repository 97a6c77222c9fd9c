"""Clones of the project in which the commands of the README have been typed."""

from pathlib import Path

import pytest

from tests.documents import commands
from tests.documents.clone import INSTALLATION, Clone
from tests.support import Result


@pytest.fixture(scope="session")
def first_look(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, Result]:
    """A clone in which somebody has typed the first command of the README, and what that printed."""
    clone = Clone(tmp_path_factory.mktemp("first-look"))
    (block,) = commands("README.md", "See it work")
    return clone, clone.type(block, INSTALLATION)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone in which nothing has been done yet."""
    directory = tmp_path / "clone"
    directory.mkdir()
    return Clone(directory)
