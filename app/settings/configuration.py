"""Looks up and validates every setting. Problems are collected, so that one run reports all of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from app import logs
from app.exceptions import Misconfigured
from app.settings import parsers
from app.settings.declarations import (
    CA_VARIABLES,
    DECLARATIONS,
    EXPIRE_PATH,
    FORMER,
    PROXY_VARIABLES,
    Declaration,
    Settings,
)
from app.settings.misspelt import misspelt_in_environment, misspelt_in_secrets
from app.settings.sources import Dotenv, Sources, read_dotenv, unquoted

SECRETS_DIR = Path("/run/secrets")
DOTENV = Path(".env")

_EXPOSED_BY_HTTP = {
    "PROCTOR_URL": "the credentials cross",
    "AUTH_URL": "the credentials cross",
    "HEARTBEAT_URL": "its path, with which anybody can report runs, crosses",
}


@dataclass(frozen=True)
class Setting:
    """What was found for one setting: its value, the text of that value (None or empty: not set), and its source."""

    value: Any
    text: str | None
    source: str


@dataclass
class Configuration:
    """What was found for each setting by its name, and what is wrong or doubtful, one sentence each."""

    found: dict[str, Setting] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    schedule: str | None = None
    """SCHEDULE, which is docker compose's and not this program's: only `check` looks at it."""
    proxies: dict[str, str] = field(default_factory=dict)
    """The proxy variables of `.env` that the environment does not have, to be added to it before anything is sent."""

    def __getitem__(self, name: str) -> Setting:
        return self.found[name]

    def settings(self) -> Settings:
        """The settings, if nothing is wrong with them.

        Raises:
            Misconfigured: names every problem, one per line.
        """
        if self.problems:
            raise Misconfigured("\n".join(self.problems))
        return Settings(**{name.lower(): setting.value for name, setting in self.found.items()})

    def apply(self) -> None:
        """Put into effect what holds for the whole process: how it logs, and the proxies of `.env`."""
        logs.configure(self["LOG_LEVEL"].value, self["LOG_FORMAT"].value)
        for name, value in self.proxies.items():
            os.environ.setdefault(name, value)  # where requests looks for them

    def shown(self, name: str) -> str:
        """The text of a setting for people's eyes: never a secret's."""
        text = self[name].text
        if not text:
            return "not set"
        of_a_user = name.endswith("_URL") and "@" in text
        return "(secret)" if DECLARATIONS[name].secret or of_a_user else text


def read(
    environ: Mapping[str, str] = os.environ, secrets_dir: Path = SECRETS_DIR, dotenv: Path = DOTENV
) -> Configuration:
    """Look every setting up. Never raises for what it finds: see `Configuration.problems`. Changes nothing."""
    variables = read_dotenv(dotenv)
    configuration = Configuration(problems=[*variables.problems], warnings=[*variables.warnings])
    accessible = not secrets_dir.is_dir() or os.access(secrets_dir, os.X_OK)
    if not accessible:
        configuration.warnings.append(
            f"{secrets_dir} is not accessible to this user and is ignored. Mount the files one by one, or open the"
            " directory (chmod 711)."
        )
    sources = Sources(environ, secrets_dir if accessible else None, variables)
    configuration.problems += misspelt_in_environment(environ) + misspelt_in_secrets(secrets_dir)
    for name, declaration in DECLARATIONS.items():
        configuration.found[name] = _find(name, declaration, sources, configuration)
    configuration.warnings += [
        f"{name} (environment) is called {FORMER[name]} now."
        for name in FORMER
        if name in environ and name != "ENDPOINT"  # which other programs set as well
    ]
    configuration.schedule = environ.get("SCHEDULE") or variables.variables.get("SCHEDULE") or None
    if configuration.schedule:
        configuration.schedule = unquoted(configuration.schedule)
    _take_proxies(environ, variables, configuration)
    _inherit_ca_bundle({**variables.variables, **environ}, configuration)
    _validate(configuration)
    _split_endpoint(configuration)
    return configuration


def read_variables(variables: Mapping[str, str]) -> Configuration:
    """Look every setting up in `variables` alone, except LOG_LEVEL and LOG_FORMAT, which the environment may have."""
    of_logs = {name: os.environ[name] for name in ("LOG_LEVEL", "LOG_FORMAT") if name in os.environ}
    nowhere = Path(os.devnull, "none")
    return read({**variables, **of_logs}, secrets_dir=nowhere, dotenv=nowhere)


def _find(name: str, declaration: Declaration, sources: Sources, configuration: Configuration) -> Setting:
    """Look one setting up. Where something is wrong with it, its value is the default's."""
    text = declaration.default
    default = Setting(declaration.parse(text) if text else None, text, "default")
    try:
        found = sources.look_up(name)
    except ValueError as error:
        configuration.problems.append(str(error))
        return Setting(default.value, None, "not usable")
    if not found:
        if declaration.default is None:
            configuration.problems.append(f"{name} is not set.")
        return default
    text, source = found
    if declaration.secret and text != text.strip():
        configuration.warnings.append(f"{name} (from {source}) begins or ends with white space, which is kept.")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        configuration.warnings.append(
            f"{name} (from {source}) begins and ends with a quote, which is part of the value here. Remove it, unless"
            " it belongs there."
        )
    try:
        text.encode()
        return Setting(declaration.parse(text if declaration.secret else text.strip()), text, source)
    except UnicodeError:
        problem = "is not UTF-8 text"
    except ValueError as error:
        problem = str(error)
    configuration.problems.append(f"{name} (from {source}) {problem}.")
    return Setting(default.value, text, source)


def _take_proxies(environ: Mapping[str, str], dotenv: Dotenv, configuration: Configuration) -> None:
    """Take from `.env` what the environment has not, in upper or lower case: even an empty variable there wins."""
    present = {name.upper() for name in environ}
    for name, value in dotenv.variables.items():
        if value and name.upper() in PROXY_VARIABLES and name.upper() not in present:
            try:
                os.fsencode(parsers.text(value))
            except ValueError:
                configuration.problems.append(f"{name} (from {dotenv.path}) cannot be put into the environment.")
            else:
                configuration.proxies[name] = value


def _inherit_ca_bundle(variables: Mapping[str, str], configuration: Configuration) -> None:
    """Where TLS_CA_FILE is not set, use the CA certificates that the other programs of this machine are given."""
    if not configuration["TLS_VERIFY"].value or configuration["TLS_CA_FILE"].source != "default":
        return
    for variable in CA_VARIABLES:
        if path := variables.get(variable):
            try:
                if not os.path.isdir(path):
                    parsers.ca_file(path)
            except ValueError as error:
                configuration.problems.append(f"{variable} {error}. Fix it, or set TLS_CA_FILE.")
            else:
                configuration.found["TLS_CA_FILE"] = Setting(path, path, variable)
            return


def _validate(configuration: Configuration) -> None:
    """Find what is wrong or doubtful about settings that are well formed each by itself."""
    found, problems, warnings = configuration.found, configuration.problems, configuration.warnings
    if found["AUTH_GRANT_TYPE"].value == "password":
        problems += [
            f"{name} is not set; the grant type password needs it (AUTH_GRANT_TYPE=client_credentials does not)."
            for name in ("AUTH_USERNAME", "AUTH_PASSWORD")
            if found[name].value is None and found[name].source == "default"
        ]
    if not found["TLS_VERIFY"].value:
        warnings.append("TLS_VERIFY is off: anyone on the network path can read the password and the token.")
    warnings += [
        f"{name} is http: {exposed} the network unencrypted."
        for name, exposed in _EXPOSED_BY_HTTP.items()
        if (url := found[name].value) and urlsplit(url).scheme == "http" and not _is_loopback(url)
    ]
    client_name = found["CLIENT_NAME"].value
    if client_name and "." in client_name:
        warnings.append("CLIENT_NAME contains a dot: Proctor may take what follows the last dot for a file suffix.")
    if client_name and " " in client_name:
        warnings.append(
            "CLIENT_NAME contains a space: Proctor encodes it twice when it looks up the client's assessments, so those"
            " that are to be force completed are not found."
        )


def _split_endpoint(configuration: Configuration) -> None:
    """Where PROCTOR_URL is the address of the whole endpoint, keep what comes before the endpoint's path."""
    setting, client_name = configuration["PROCTOR_URL"], configuration["CLIENT_NAME"].value
    if not setting.value or not client_name:
        return
    url, _, rest = setting.value.partition(EXPIRE_PATH)
    configuration.found["PROCTOR_URL"] = replace(setting, value=url)
    if unquote(rest.strip("/")) not in ("", client_name):
        configuration.problems.append(f"PROCTOR_URL ends with a client name other than CLIENT_NAME={client_name!r}.")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
