"""A MariaDB for the session, and a shell in which the commands of the README find it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recover.database import PROGRAMS, Database, find, server
from tests.recover.shell import Shell, operator_shell


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Database]:
    missing = [program for program in PROGRAMS if not find(program)]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"no MariaDB here (Debian: mariadb-server): {', '.join(missing)}")
    assert not missing
    with server() as database:
        yield database


@pytest.fixture
def database(mariadb: Database) -> Database:
    mariadb.empty()
    return mariadb


@pytest.fixture
def shell(tmp_path: Path, database: Database) -> Shell:
    """The clock of the database is an hour ahead for the client, so that no window is still open when it asks."""
    return operator_shell(tmp_path, database, ahead=3600)
