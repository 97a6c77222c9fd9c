"""A real MariaDB with the tables of the exam service that the query reads, on a socket of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.support import output_of

PROGRAMS = ("mariadbd", "mariadb-install-db", "mariadb-admin", "mariadb")

# As the exam service's migrations leave them; neither has an index that the query could use.
_SCHEMA = """
DROP DATABASE IF EXISTS exam;
CREATE DATABASE exam CHARACTER SET utf8 COLLATE utf8_unicode_ci;
CREATE TABLE exam.exam (
    id char(36) NOT NULL, student_id bigint NOT NULL, assessment_key varchar(250) NOT NULL,
    assessment_id varchar(255) NOT NULL, client_name varchar(100) NOT NULL);
CREATE TABLE exam.exam_event (
    exam_id char(36) NOT NULL, status varchar(50) NOT NULL, status_changed_at datetime(3) NOT NULL,
    status_change_reason varchar(255));
"""

_OTHERS = """
USE exam;
CREATE TEMPORARY TABLE exam.others AS SELECT uuid() AS id, seq FROM seq_1_to_10000;
INSERT INTO exam.exam SELECT id, seq, '(SBAC_PT)Other', 'Other', 'SBAC_PT' FROM exam.others;
INSERT INTO exam.exam_event SELECT id, 'approved', '{at}', 'A proctor approved it' FROM exam.others;
DROP TEMPORARY TABLE exam.others;
"""


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


class Database:
    """The server, and what the exam service has written to it."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "socket"

    def execute(self, sql: str) -> str:
        """Run statements; returns the rows, tab-separated."""
        command = [str(find("mariadb")), "--no-defaults", f"--socket={self.socket}", "--user=root", "-N"]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def empty(self) -> None:
        self.execute(_SCHEMA)

    def fill(self, events: Iterable[dict[str, Any]], zone: tzinfo, *, whole_seconds: bool = False) -> None:
        """Write changes of exams, the time as a JVM in that zone does, with or without its milliseconds."""
        exams, changes = {}, []
        for event in events:
            at = datetime.fromisoformat(event["changedAt"]).astimezone(zone)
            time = f"{at:%Y-%m-%d %H:%M:%S}.{0 if whole_seconds else at.microsecond // 1000:03}"
            changes.append((event["examId"], event["status"], time, event["reason"]))
            keys = ("examId", "studentId", "assessmentKey", "assessmentId", "clientName")
            exams[event["examId"]] = tuple(event[key] for key in keys)
        for table, rows in ("exam.exam", exams.values()), ("exam.exam_event", changes):
            if values := ",\n".join(map(repr, rows)):
                self.execute(f"INSERT INTO {table} VALUES {values};")

    def add_others(self, at: datetime) -> None:
        """Write ten thousand exams that somebody else changed at a time, as the column has it."""
        self.execute(_OTHERS.format(at=f"{at:%Y-%m-%d %H:%M:%S}"))


@contextmanager
def server() -> Iterator[Database]:
    """A server without network, and without any data yet."""
    directory = Path(mkdtemp(prefix="mariadb-"))  # a short path, as that of a socket must be
    try:
        # A server removes the temporary tables of all others in its tmpdir as it starts.
        options = ["--no-defaults", f"--datadir={directory / 'data'}", f"--tmpdir={directory}"]
        options += ["--user=root"] if os.geteuid() == 0 else []
        install = [str(find("mariadb-install-db")), *options, "--auth-root-authentication-method=normal"]
        output_of(install)
        small = ["--skip-networking", "--innodb-buffer-pool-size=16M", "--performance-schema=off"]
        files = [f"--socket={directory / 'socket'}", f"--pid-file={directory / 'pid'}"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen([str(find("mariadbd")), *options, *small, *files], stdout=log, stderr=log)
        try:
            admin = [str(find("mariadb-admin")), "--no-defaults", f"--socket={directory / 'socket'}", "--user=root"]
            ping = subprocess.run([*admin, "--wait=60", "ping"], capture_output=True, text=True, check=False)
            assert ping.returncode == 0, ping.stderr + (directory / "log").read_text()
            yield Database(directory)
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(directory)
