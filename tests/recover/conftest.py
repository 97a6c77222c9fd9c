"""A MariaDB for the session, and a shell in which the commands of the README find it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.recover.database import PROGRAMS, Database, find, server
from tests.support import PATIENCE, ROOT, Result

Shell = Callable[..., Result]
"""Runs a line of sh as an operator does, with `python` and `mysql`: `shell("mysql -N exam < query.sql")`."""


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
    programs, directory = tmp_path / "bin", tmp_path / "shell"
    programs.mkdir()
    directory.mkdir()
    later = "SET timestamp = UNIX_TIMESTAMP() + $AHEAD"
    mysql = f'{find("mariadb")} --no-defaults --socket={database.socket} --user=root --init-command="{later}"'
    for name, command in ("mysql", mysql), ("python", sys.executable):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"

    def run(line: str, ahead: int = 3600, **settings: str) -> Result:
        environment = {"PATH": path, "PYTHONPATH": str(ROOT), "LOG_FORMAT": "json", "AHEAD": str(ahead), **settings}
        done = subprocess.run(
            ["sh", "-c", line], cwd=directory, env=environment, capture_output=True, check=False, timeout=PATIENCE
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run
