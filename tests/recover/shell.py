"""A shell in which the commands of the README find `python` and a client of the database."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.recover.database import Database, find
from tests.support import PATIENCE, ROOT, Result

Shell = Callable[..., Result]
"""Runs a line of sh as an operator does, with `python` and `mysql`: `shell("mysql -N exam < query.sql")`."""


def operator_shell(place: Path, database: Database, *, ahead: int = 0) -> Shell:
    """A shell whose files are in `place`. For its client the clock of the database is `ahead` by so many seconds."""
    programs, directory = place / "bin", place / "shell"
    programs.mkdir()
    directory.mkdir()
    later = "SET timestamp = UNIX_TIMESTAMP() + $AHEAD"
    mysql = f'{find("mariadb")} --no-defaults --socket={database.socket} --user=root --init-command="{later}"'
    for name, command in ("mysql", mysql), ("python", sys.executable):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"

    def run(line: str, ahead: int = ahead, **settings: str) -> Result:
        environment = {"PATH": path, "PYTHONPATH": str(ROOT), "LOG_FORMAT": "json", "AHEAD": str(ahead), **settings}
        done = subprocess.run(
            ["sh", "-c", line], cwd=directory, env=environment, capture_output=True, check=False, timeout=PATIENCE
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run
