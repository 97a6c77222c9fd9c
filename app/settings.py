"""Every setting: where it may come from, what it may be, and what is wrong with it.

A setting `NAME` is looked up in this order: the environment (`NAME`, or the file that `NAME_FILE` names), the secret
file `/run/secrets/<name in lower case>`, the file `.env` in the working directory. An empty value counts as not set.
All that is wrong is collected, so that one run names every problem; no message holds the value of a secret.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from app.exceptions import Misconfigured

SECRETS_DIR = Path("/run/secrets")
DOTENV = Path(".env")

_EXPIRE_PATH = "/Services/exams/expire"
_LONGEST_FILE = 64 * 1024
_DAY = 86_400


class Settings(NamedTuple):
    """The settings of a run. All durations are in seconds. Some are secrets: none of them goes into a log."""

    proctor_url: str
    client_name: str
    auth_url: str
    auth_client_id: str
    auth_client_secret: str
    auth_username: str | None
    auth_password: str | None
    auth_grant_type: str
    auth_client_auth: str
    auth_scope: str | None
    tls_verify: bool
    tls_ca_file: str | None
    connect_timeout: float
    read_timeout: float
    max_attempts: int
    max_wait: float
    max_lost_responses: int
    max_runtime: float
    fail_on_no_progress: bool
    output_dir: Path | None
    log_level: str
    log_format: str
    heartbeat_url: str | None

    def __repr__(self) -> str:
        return "Settings(...)"

    @property
    def expire_url(self) -> str:
        """The endpoint that expires the overdue exams."""
        return f"{self.proctor_url}{_EXPIRE_PATH}/{quote(self.client_name, safe='')}"


def _text(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("holds a control character, such as a line break")
    return value


def _client_name(value: str) -> str:
    if value in (".", ".."):
        raise ValueError(f"is {value!r}, which a URL cannot carry")
    if re.search("[\"']|\\s#", value):
        raise ValueError(f"is {value}: write it without quotes, and without a comment behind it")
    return _text(value)


def _url(value: str) -> str:
    """An http or https URL without user name, password and fragment. A bare host means https."""
    try:
        parts = urlsplit(_text(value) if "://" in value else f"https://{_text(value)}")
        usable = parts.scheme in ("http", "https") and (parts.port is None or parts.port > 0)
        usable = usable and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\"'<>\\^`{|}]", value):
        raise ValueError("is not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or password; credentials belong into the AUTH_ settings")
    if parts.fragment:
        raise ValueError("holds a '#'; a URL of a service has none")
    return urlunsplit(parts)


def _proctor_url(value: str) -> str:
    """The URL up to and with the context path, which is /proctor where none is given."""
    parts = urlsplit(_url(value))
    if parts.query:
        raise ValueError("holds a '?'; give the address of Proctor alone, such as https://proctor.example.org")
    path = parts.path.rstrip("/") or "/proctor"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise ValueError(f"is {value!r}; it must be {' or '.join([', '.join(choices[:-1]), choices[-1]])}")

    return parse


def _truth(value: str) -> bool:
    return _choice("true", "false", "yes", "no", "on", "off", "1", "0")(value) in ("true", "yes", "on", "1")


def _number(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = kind(value)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"is {value!r}; it must be {what} from {least:g} to {most:g}")
        return number

    return parse


def _ca_file(value: str) -> str:
    import ssl

    if not os.path.isfile(value):
        raise ValueError(f"names {value!r}, which is no file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except OSError as error:  # ssl.SSLError is an OSError
        raise ValueError(f"names {value!r}, which cannot be read as CA certificates (PEM): {error.strerror}") from None
    return value


class _Kind(NamedTuple):
    """What a setting may be. `default` is None for one that is required, and empty for one that may be missing."""

    parse: Callable[[str], Any]
    default: str | None = ""
    secret: bool = False


_KINDS = {
    "PROCTOR_URL": _Kind(_proctor_url, None),
    "CLIENT_NAME": _Kind(_client_name, None),
    "AUTH_URL": _Kind(_url, None),
    "AUTH_CLIENT_ID": _Kind(_text, None),
    "AUTH_CLIENT_SECRET": _Kind(str, None, secret=True),
    "AUTH_USERNAME": _Kind(_text),
    "AUTH_PASSWORD": _Kind(str, secret=True),
    "AUTH_GRANT_TYPE": _Kind(_choice("password", "client_credentials"), "password"),
    "AUTH_CLIENT_AUTH": _Kind(_choice("post", "basic"), "post"),
    "AUTH_SCOPE": _Kind(_text),
    "TLS_VERIFY": _Kind(_truth, "true"),
    "TLS_CA_FILE": _Kind(_ca_file),
    "CONNECT_TIMEOUT": _Kind(_number(float, 0.001, _DAY), "10"),
    "READ_TIMEOUT": _Kind(_number(float, 0.001, _DAY), "300"),
    "MAX_ATTEMPTS": _Kind(_number(int, 1, 1000), "5"),
    "MAX_WAIT": _Kind(_number(float, 0, _DAY), "60"),
    "MAX_LOST_RESPONSES": _Kind(_number(int, 0, 1000), "2"),
    "MAX_RUNTIME": _Kind(_number(float, 0, 7 * _DAY), "0"),
    "FAIL_ON_NO_PROGRESS": _Kind(_truth, "false"),
    "OUTPUT_DIR": _Kind(lambda value: Path(_text(value))),
    "LOG_LEVEL": _Kind(_choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
    "LOG_FORMAT": _Kind(_choice("text", "json"), "text"),
    "HEARTBEAT_URL": _Kind(_url, secret=True),
}
NAMES = tuple(_KINDS)

# What else a .env beside docker-compose.yml holds, and what the settings of the older script are called now.
_OF_COMPOSE = {"TZ", "SCHEDULE", "OUTPUT", "MAX_AGE", "DOCKER_SOCKET"}
_FORMER = {
    "ENDPOINT": "PROCTOR_URL",
    "SSL_CHECKS": "TLS_VERIFY",
    "AUTH_ENDPOINT": "AUTH_URL",
    "AUTH_PAYLOAD": "AUTH_CLIENT_ID, AUTH_CLIENT_SECRET, AUTH_USERNAME and AUTH_PASSWORD",
}


class Configuration:
    """What was found: a value and its source for each setting, and what is wrong or doubtful, a sentence each."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.texts: dict[str, str | None] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def settings(self) -> Settings:
        """The settings, if nothing is wrong with them.

        Raises:
            Misconfigured: names every problem, one a line.
        """
        if self.problems:
            raise Misconfigured("\n".join(self.problems))
        return Settings(**{name.lower(): value for name, value in self.values.items()})

    def shown(self, name: str) -> str:
        """The value of a setting for people's eyes: never a secret's."""
        text = self.texts.get(name)
        if not text:
            return "not set"
        of_a_user = name.endswith("_URL") and "@" in text
        return "(secret)" if _KINDS[name].secret or of_a_user else text


def read(
    environ: Mapping[str, str] = os.environ, secrets_dir: Path = SECRETS_DIR, dotenv: Path = DOTENV
) -> Configuration:
    """Look every setting up. Never raises for what it finds: see `Configuration.problems`."""
    configuration = Configuration()
    from_dotenv = _read_dotenv(dotenv, configuration)
    if secrets_dir.is_dir() and not os.access(secrets_dir, os.X_OK):
        configuration.warnings.append(
            f"{secrets_dir} cannot be looked into by this user, and is left out. Mount the files one by one, or open"
            " the directory (chmod 711)."
        )
        secrets_dir = Path(os.devnull)
    for name, kind in _KINDS.items():
        configuration.sources[name] = "default"
        configuration.texts[name] = kind.default
        configuration.values[name] = kind.parse(kind.default) if kind.default else None
        try:
            text, source = _look_up(name, environ, secrets_dir, dotenv, from_dotenv)
            if text:
                configuration.sources[name] = source
                configuration.texts[name] = text
                configuration.values[name] = _parse(name, kind, text, source, configuration)
            elif kind.default is None:
                raise ValueError(f"{name} is not set.")
        except ValueError as error:
            configuration.problems.append(str(error))
    configuration.warnings += [
        f"{name} (environment) is called {_FORMER[name]} now." for name in _FORMER if name in environ and "_" in name
    ]
    _take_over_trust(environ, configuration)
    _judge(configuration)
    return configuration


def _look_up(
    name: str, environ: Mapping[str, str], secrets_dir: Path, dotenv: Path, from_dotenv: Mapping[str, str]
) -> tuple[str | None, str]:
    """The text of a setting, None or empty where it is not set, and the place it is from."""

    def places() -> Iterator[tuple[str | None, str]]:
        yield _variable(environ, name, "environment")
        secret = secrets_dir / name.lower()
        yield _read_file(name, secret), str(secret)
        yield _variable(from_dotenv, name, str(dotenv))

    for text, source in places():
        if text and (text.strip() or _KINDS[name].secret):
            return text, source
    return None, ""


def _variable(variables: Mapping[str, str], name: str, place: str) -> tuple[str | None, str]:
    """The value of NAME, or of the file that NAME_FILE names, and where it is from."""
    text, file = variables.get(name), variables.get(f"{name}_FILE")
    if text and file:
        raise ValueError(f"{name} and {name}_FILE are both set ({place}); set one of them.")
    if not file:
        return text, place
    # Where a secret is expected, the secret itself may stand in place of the path.
    shown = "its file" if _KINDS[name].secret else repr(file)
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


def _parse(name: str, kind: _Kind, text: str, source: str, configuration: Configuration) -> Any:
    if kind.secret and text != text.strip():
        configuration.warnings.append(f"{name} (from {source}) begins or ends with white space, which is kept.")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        configuration.warnings.append(
            f"{name} (from {source}) begins and ends with a quote, which is part of the value here. Remove it, unless"
            " it belongs there."
        )
    try:
        text.encode()
        return kind.parse(text if kind.secret else text.strip())
    except UnicodeError:
        problem = "is not UTF-8 text"
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"{name} (from {source}) {problem}.")


def _take_over_trust(environ: Mapping[str, str], configuration: Configuration) -> None:
    """Where TLS_CA_FILE is not set, take what the other programs of this machine are told to trust."""
    if not configuration.values["TLS_VERIFY"] or configuration.sources["TLS_CA_FILE"] != "default":
        return
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := environ.get(variable):
            configuration.sources["TLS_CA_FILE"] = variable
            configuration.texts["TLS_CA_FILE"] = configuration.values["TLS_CA_FILE"] = path
            try:
                if not os.path.isdir(path):
                    _ca_file(path)
            except ValueError as error:
                configuration.problems.append(f"{variable} {error}. Mend it, or set TLS_CA_FILE.")
            return


def _judge(configuration: Configuration) -> None:
    """What is wrong or doubtful about settings that are well formed each by itself."""
    values, problems, warnings = configuration.values, configuration.problems, configuration.warnings
    if values["AUTH_GRANT_TYPE"] == "password":
        problems += [
            f"{name} is not set; the grant type password needs it (AUTH_GRANT_TYPE=client_credentials does not)."
            for name in ("AUTH_USERNAME", "AUTH_PASSWORD")
            if values[name] is None and not any(problem.startswith(name) for problem in problems)
        ]
    if values["PROCTOR_URL"] and values["CLIENT_NAME"]:
        values["PROCTOR_URL"], _, rest = values["PROCTOR_URL"].partition(_EXPIRE_PATH)
        if unquote(rest.strip("/")) not in ("", values["CLIENT_NAME"]):
            problems.append(f"PROCTOR_URL ends with another client name than CLIENT_NAME={values['CLIENT_NAME']!r}.")
    if not values["TLS_VERIFY"]:
        warnings.append("TLS_VERIFY is off: whoever is on the line can read the password and the token.")
    warnings += [
        f"{name} is http: the credentials cross the network unencrypted."
        for name in ("PROCTOR_URL", "AUTH_URL")
        if values[name] and urlsplit(values[name]).scheme == "http" and not _is_loopback(values[name])
    ]
    if values["CLIENT_NAME"] and "." in values["CLIENT_NAME"]:
        warnings.append("CLIENT_NAME holds a dot: Proctor may take what follows the last one for a file suffix.")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _read_dotenv(path: Path, configuration: Configuration) -> dict[str, str]:
    """The variables of a .env file, taken literally: no `$` in a value has a meaning."""
    try:
        text = _read_file(".env", path)
    except ValueError as error:
        configuration.problems.append(str(error))
        return {}
    if text is None:
        return {}
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH):
        configuration.warnings.append(f"{path} can be read by other users of this machine; run: chmod 600 {path}")

    import io

    from dotenv.parser import parse_stream

    variables, known = {}, {name + suffix for name in _KINDS for suffix in ("", "_FILE")} | _OF_COMPOSE
    for binding in parse_stream(io.StringIO(text)):
        line = f"{path}, line {binding.original.line}"
        if binding.error or (binding.key and binding.value is None):
            configuration.problems.append(f"{line}: this is not NAME=value, or a quote in it has no end.")
        elif binding.key:
            variables[binding.key] = binding.value or ""
            if binding.original.string.partition("=")[2].strip() != variables[binding.key]:
                configuration.warnings.append(
                    f"{line}: quotes or a comment are taken off here, but docker keeps them. Write the bare value; one"
                    " that has them in it belongs into a file (NAME_FILE)."
                )
            if binding.key not in known:
                configuration.warnings.append(f"{line}: {_unknown(binding.key)}")
    return variables


def _unknown(name: str) -> str:
    """What to say of a name that is no setting. It may be a piece of a secret: told only if it resembles a setting."""
    import difflib

    if name in _FORMER:
        return f"{name} is called {_FORMER[name]} now."
    nearest = difflib.get_close_matches(name.upper(), _KINDS, n=1)
    if nearest:
        return f"{name} is no setting of this program; did you mean {nearest[0]}?"
    return "this is no setting of this program."
