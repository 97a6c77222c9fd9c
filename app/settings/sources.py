"""Where settings come from: the environment, files that it names, the secrets directory, and `.env`."""

import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Not dotenv_values, the package's public function: it gives no line numbers, skips what it cannot parse, and does not
# show whether quotes or a comment were removed from a value.
from dotenv.parser import Binding, parse_stream

from app.settings.declarations import CA_VARIABLES, DECLARATIONS, EVERY_NAME, FORMER, PROXY_VARIABLES
from app.settings.misspelt import misspelt, nearest, not_known

_LONGEST_FILE = 64 * 1024  # bytes
_OF_COMPOSE = {"TZ", "SCHEDULE", "OUTPUT", "MAX_AGE"}
_PREFIXES_OF_DOCKER = ("COMPOSE_", "DOCKER_", "BUILDKIT_")


@dataclass(frozen=True)
class Dotenv:
    """The variables of a `.env`, and what is wrong or doubtful about it, one sentence each."""

    path: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """The places to look a setting up, in their order."""

    environ: Mapping[str, str]
    secrets_dir: Path | None
    dotenv: Dotenv

    def look_up(self, name: str) -> tuple[str, str] | None:
        """The text of a setting and the place it is from, or None where it is not set.

        Raises:
            ValueError: it is set in a way that cannot be used; says how.
        """
        for text, source in self._places(name):
            if text and (text.strip() or DECLARATIONS[name].secret):
                return text, source
        return None

    def _places(self, name: str) -> Iterator[tuple[str | None, str]]:
        yield _variable(self.environ, name, "environment")
        if self.secrets_dir:
            secret = self.secrets_dir / name.lower()
            yield _read_file(name, secret), str(secret)
        yield _variable(self.dotenv.variables, name, str(self.dotenv.path))


def _variable(variables: Mapping[str, str], name: str, place: str) -> tuple[str | None, str]:
    """The value of NAME, or of the file that NAME_FILE names, and where it is from."""
    text, file = variables.get(name), variables.get(f"{name}_FILE")
    if text and file:
        raise ValueError(f"{name} and {name}_FILE are both set ({place}); set one of them.")
    if not file:
        return text, place
    # Where a secret is expected, the secret itself may stand in place of the path.
    shown = "its file" if DECLARATIONS[name].secret else repr(file)
    content = _read_file(f"{name}_FILE ({place})", Path(file), shown)
    if content is None:
        raise ValueError(f"{name}_FILE ({place}): {shown} does not exist.")
    return content, file


def _read_file(name: str, path: Path, shown: str | None = None) -> str | None:
    """The content of a file without its last line break, or None where there is no such file."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_FILE + 1)
        if len(content) <= _LONGEST_FILE:
            return re.sub(r"\r?\n\Z", "", content.decode())
        problem = f"is larger than {_LONGEST_FILE} bytes"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError:
        problem = "is not UTF-8 text"
    raise ValueError(f"{name}: {shown or repr(str(path))} {problem}.")


def read_dotenv(path: Path) -> Dotenv:
    """Read a `.env` if there is one, literally: no `$` in a value has a meaning."""
    try:
        text = _read_file(".env", path)
    except ValueError as error:
        return Dotenv(path, problems=(str(error),))
    if text is None:
        return Dotenv(path)
    variables, problems, warnings = {}, [], []
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH):
        warnings.append(f"{path} can be read by other users of this machine; run: chmod 600 {path}")
    for binding in parse_stream(io.StringIO(text)):
        line = f"{path}, line {binding.original.line}"
        if binding.error or (binding.key and binding.value is None):
            problems.append(f"{line}: this is not NAME=value, or a quote in it is not closed.")
        elif binding.key:
            variables[binding.key] = binding.value or ""
            warnings += [f"{line}: {doubt}" for doubt in _doubts(binding)]
            if setting := misspelt(binding.key):
                problems.append(f"{line}: {not_known(binding.key, setting)}")
    return Dotenv(path, variables, tuple(problems), tuple(warnings))


def unquoted(value: str) -> str:
    """The value of a variable as docker compose and python-dotenv read it in a `.env`: without quotes and comment."""
    bindings = list(parse_stream(io.StringIO(f"NAME={value}")))
    return bindings[0].value or "" if len(bindings) == 1 else value


def _doubts(binding: Binding) -> Iterator[str]:
    name = binding.key or ""
    if binding.original.string.partition("=")[2].strip() != binding.value:
        yield (
            "quotes or a comment are removed here, but docker keeps them. Write the bare value; one that contains them"
            " belongs in a file (NAME_FILE)."
        )
    known = {*EVERY_NAME, *_OF_COMPOSE, *CA_VARIABLES}
    if name in known or name.upper() in PROXY_VARIABLES or name.startswith(_PREFIXES_OF_DOCKER):
        return
    if name in FORMER:
        yield f"{name} is called {FORMER[name]} now."
    elif not misspelt(name):
        # The name may be part of a secret that spans lines: it is shown only if it resembles a setting.
        setting = nearest(name)
        yield not_known(name, setting) if setting else "this is not a known setting."
