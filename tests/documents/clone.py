"""A clone of the project, in which the commands of the documents are typed."""

import os
import pty
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.settings.declarations import EVERY_NAME
from tests.support import PATIENCE, ROOT, Result

INSTALLATION = 600  # seconds after which pip is taken to hang


class Clone:
    """The files of the project that git has, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (ROOT / ".git").exists():
            pytest.skip("only git knows which files belong to the project, and this is not a clone")
        command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]  # whoever the files belong to
        files = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        for name in filter(None, files.split("\0")):
            if (ROOT / name).exists():  # else it was deleted, and that is not committed yet
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, directory / name)

    def type(self, block: str, patience: float = PATIENCE) -> Result:
        """Type a block of commands in bash, each of which must succeed for the next one to run."""
        return self._run(["bash", "-ec", block], env=_environment(), timeout=patience)

    def type_at_prompts(self, block: str, typed: dict[str, str]) -> None:
        """Type a block in a terminal, and at each prompt what belongs there."""
        terminal, stdin = pty.openpty()
        command = ["bash", "-ec", block]
        with subprocess.Popen(
            command, cwd=self.directory, stdin=stdin, stdout=stdin, stderr=stdin, start_new_session=True
        ) as process:
            os.close(stdin)
            shown = b""
            with suppress(OSError):  # the terminal is closed at the end of the last command
                for prompt, text in typed.items():
                    while not shown.endswith(prompt.encode()):
                        shown += os.read(terminal, 1024)
                    os.write(terminal, text.encode() + b"\n")
                while data := os.read(terminal, 1024):
                    shown += data
            os.close(terminal)
            assert process.wait(PATIENCE) == 0, shown

    def fill_in(self, **settings: str) -> None:
        """Edit `.env`, each setting where it stands there."""
        text = (self.directory / ".env").read_text(encoding="utf-8")
        for name, value in settings.items():
            pattern, line = re.compile(rf"^#?{name}=.*$", re.MULTILINE), f"{name}={value}"
            there = pattern.search(text)
            text = f"{text[: there.start()]}{line}{text[there.end() :]}" if there else f"{text}{line}\n"
        (self.directory / ".env").write_text(text, encoding="utf-8")

    def cron(self, line: str) -> Result:
        """Run a line of a crontab as cron does, in the environment that cron has."""
        *schedule, command = line.split(maxsplit=5)
        assert all(re.fullmatch(r"[\d*]+", field) for field in schedule)
        assert "%" not in command  # a line break to cron
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        environment = {"HOME": str(home), "LOGNAME": "operator", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
        command = command.replace("/opt/force-submit", str(self.directory))
        return self._run(["/bin/sh", "-c", command], cwd=home, env=environment, timeout=PATIENCE)

    def _run(self, command: list[str], **options: Any) -> Result:
        options = {"cwd": self.directory, "stdin": subprocess.DEVNULL, **options}
        done = subprocess.run(command, capture_output=True, check=False, **options)
        return Result(done.returncode, done.stdout, done.stderr)


def _environment() -> dict[str, str]:
    """That of the tests, in which pip finds its packages, without the settings of anything that is tested."""
    return {name: value for name, value in os.environ.items() if name not in {*EVERY_NAME, "PYTHONPATH"}}
