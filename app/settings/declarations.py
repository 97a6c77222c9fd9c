"""Every setting, declared once: its name, type, parser and default, and whether it is a secret."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from app.settings import parsers

EXPIRE_PATH = "/Services/exams/expire"
_DAY = 86_400

T = TypeVar("T")


@dataclass(frozen=True)
class Declaration:
    """What a setting may be. `default` is None for one that is required, and empty for one that may be missing."""

    parse: Callable[[str], Any]
    default: str | None
    secret: bool


# Each of these returns a dataclass field, and says that it is a T so that mypy compares parser and attribute.
def _required(parse: Callable[[str], T], *, secret: bool = False) -> T:
    declared: T = field(metadata={"declaration": Declaration(parse, None, secret)})
    return declared


def _optional(parse: Callable[[str], T], *, secret: bool = False) -> T | None:
    declared: T | None = field(metadata={"declaration": Declaration(parse, "", secret)})
    return declared


def _with_default(parse: Callable[[str], T], default: str) -> T:
    declared: T = field(metadata={"declaration": Declaration(parse, default, secret=False)})
    return declared


@dataclass(frozen=True, repr=False, kw_only=True)  # no repr: some are secrets, and none of them goes into a log
class Settings:
    """The settings of a run. The setting NAME is the attribute `name`. All durations are in seconds."""

    proctor_url: str = _required(parsers.proctor_url)
    client_name: str = _required(parsers.client_name)
    auth_url: str = _required(parsers.url)
    auth_client_id: str = _required(parsers.text)
    auth_client_secret: str = _required(str, secret=True)
    auth_username: str | None = _optional(parsers.text)
    auth_password: str | None = _optional(str, secret=True)
    auth_grant_type: str = _with_default(parsers.choice("password", "client_credentials"), "password")
    auth_client_auth: str = _with_default(parsers.choice("post", "basic"), "post")
    auth_scope: str | None = _optional(parsers.text)
    tls_verify: bool = _with_default(parsers.truth, "true")
    tls_ca_file: str | None = _optional(parsers.ca_file)
    connect_timeout: float = _with_default(parsers.number(float, 0.001, _DAY), "10")
    read_timeout: float = _with_default(parsers.number(float, 0.001, _DAY), "300")
    # Together more than eight minutes of patience (1 + 2 + 4 + … + 256 s): a restart of OpenAM takes minutes. And a
    # lost response is followed by a wait of READ_TIMEOUT, in which Proctor ends its work on that call.
    max_attempts: int = _with_default(parsers.number(int, 1, 1000), "10")
    max_wait: float = _with_default(parsers.number(float, 0, _DAY), "300")
    max_lost_responses: int = _with_default(parsers.number(int, 0, 1000), "2")
    max_runtime: float = _with_default(parsers.number(float, 0, 7 * _DAY), "0")
    fail_on_no_progress: bool = _with_default(parsers.truth, "false")
    output_dir: Path | None = _optional(parsers.directory)  # noqa: RUF009 - it returns a field
    log_level: str = _with_default(parsers.choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    log_format: str = _with_default(parsers.choice("text", "json"), "text")
    heartbeat_url: str | None = _optional(parsers.url, secret=True)

    @property
    def expire_url(self) -> str:
        """The endpoint that expires the overdue exams."""
        return f"{self.proctor_url}{EXPIRE_PATH}/{quote(self.client_name, safe='')}"


DECLARATIONS: dict[str, Declaration] = {item.name.upper(): item.metadata["declaration"] for item in fields(Settings)}
NAMES = tuple(DECLARATIONS)
EVERY_NAME = NAMES + tuple(f"{name}_FILE" for name in NAMES)

# Variables that other programs share with this one. What `.env` says of a proxy holds here as it does under docker.
PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")  # in upper or lower case
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

# The names of the settings of the older script.
FORMER = {
    "ENDPOINT": "PROCTOR_URL",
    "SSL_CHECKS": "TLS_VERIFY",
    "AUTH_ENDPOINT": "AUTH_URL",
    "AUTH_PAYLOAD": "AUTH_CLIENT_ID, AUTH_CLIENT_SECRET, AUTH_USERNAME and AUTH_PASSWORD",
}
