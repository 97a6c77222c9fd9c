"""What a setting may be: its default, the values that are understood, and those that are refused."""

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from app.settings import NAMES
from app.settings.declarations import DECLARATIONS
from tests.settings.places import REQUIRED, SECRET, SECRETS, Places, everything_shown
from tests.support import ROOT

DAY = 86_400  # seconds
SECRET_PATH = "0d2c-5ecret"


DEFAULTS = {
    "AUTH_GRANT_TYPE": "password",
    "AUTH_CLIENT_AUTH": "post",
    "AUTH_SCOPE": None,
    "TLS_VERIFY": True,
    "TLS_CA_FILE": None,
    "CONNECT_TIMEOUT": 10,
    "READ_TIMEOUT": 300,
    "MAX_ATTEMPTS": 10,
    "MAX_WAIT": 300,
    "MAX_LOST_RESPONSES": 2,
    "MAX_RUNTIME": 0,
    "FAIL_ON_NO_PROGRESS": False,
    "OUTPUT_DIR": None,
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "text",
    "HEARTBEAT_URL": None,
}


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
@pytest.mark.parametrize("left_out", [None, ""])
def test_a_setting_left_out_or_empty_has_its_default(
    places: Places, name: str, default: object, left_out: str | None
) -> None:
    configuration = places.read(**{name: left_out})
    assert configuration.problems == configuration.warnings == []
    assert configuration[name].source == "default"
    assert getattr(configuration.settings(), name.lower()) == default


def test_the_default_patience_outlasts_a_restart_of_the_token_service(places: Places) -> None:
    settings = places.read().settings()
    waits = [min(2**attempt, settings.max_wait) for attempt in range(settings.max_attempts - 1)]
    assert 8 * 60 <= sum(waits) <= 11 * 60


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("blank", [None, "", " ", "\t "])
def test_a_required_setting_left_out_or_blank_is_named(places: Places, name: str, blank: str | None) -> None:
    if blank and name in SECRETS:
        assert places.value(name, blank) == blank
    else:
        assert places.problem(**{name: blank}).startswith(f"{name} ")


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(REQUIRED) - set(SECRETS)))
def test_an_optional_setting_that_is_blank_is_not_taken_for_a_value(places: Places, name: str) -> None:
    configuration = places.read(**{name: "  "})
    assert configuration.problems or configuration[name].source == "default"


def test_the_grant_type_client_credentials_needs_no_user(places: Places) -> None:
    configuration = places.read(AUTH_GRANT_TYPE="client_credentials", AUTH_USERNAME=None, AUTH_PASSWORD=None)
    assert configuration.problems == []
    assert configuration.settings().auth_username is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("CLIENT_NAME", "  SBAC_PT ", "SBAC_PT"),
        ("CLIENT_NAME", "SBAC PT", "SBAC PT"),
        ("AUTH_PASSWORD", "  pass word ", "  pass word "),
        ("AUTH_PASSWORD", "line\nline\x07", "line\nline\x07"),
        ("AUTH_CLIENT_SECRET", "$HOME${X}%20&+'\"#", "$HOME${X}%20&+'\"#"),
        ("AUTH_USERNAME", "prime.user@example.org", "prime.user@example.org"),
        ("AUTH_URL", "sso.example.org/token?realm=/a&b=%2Fc", "https://sso.example.org/token?realm=/a&b=%2Fc"),
        ("AUTH_URL", "HTTP://127.0.0.1:8080/token", "http://127.0.0.1:8080/token"),
        ("AUTH_GRANT_TYPE", "PASSWORD", "password"),
        ("AUTH_GRANT_TYPE", "Client_Credentials", "client_credentials"),
        ("AUTH_CLIENT_AUTH", "Basic", "basic"),
        ("AUTH_SCOPE", "proctor openid", "proctor openid"),
        *[("TLS_VERIFY", text, True) for text in ("true", "True", "YES", "on", "1", " true ")],
        *[("TLS_VERIFY", text, False) for text in ("false", "False", "NO", "off", "0")],
        ("FAIL_ON_NO_PROGRESS", "true", True),
        ("CONNECT_TIMEOUT", "0.001", 0.001),
        ("READ_TIMEOUT", "86400", DAY),
        ("READ_TIMEOUT", "2.5", 2.5),
        ("MAX_ATTEMPTS", "1", 1),
        ("MAX_ATTEMPTS", "1000", 1000),
        ("MAX_WAIT", "0", 0),
        ("MAX_WAIT", "86400", DAY),
        ("MAX_LOST_RESPONSES", "0", 0),
        ("MAX_LOST_RESPONSES", "1000", 1000),
        ("MAX_RUNTIME", "604800", 7 * DAY),
        ("OUTPUT_DIR", "/reports/für uns", Path("/reports/für uns")),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("LOG_FORMAT", "JSON", "json"),
        ("HEARTBEAT_URL", "https://hc-ping.com/an-id?rid=1", "https://hc-ping.com/an-id?rid=1"),
    ],
)
def test_a_valid_value_is_understood(places: Places, name: str, text: str, value: object) -> None:
    assert places.value(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[
            (name, text)
            for name in ("CONNECT_TIMEOUT", "READ_TIMEOUT", "MAX_ATTEMPTS", "MAX_WAIT", "MAX_LOST_RESPONSES")
            for text in ("nan", "inf", "-inf", "-1", "ten", "1e400", "9" * 5000, "0x10", "1,5", "1 2", "86400.5")
        ],
        *[("MAX_RUNTIME", text) for text in ("nan", "inf", "-0.5", "ten", "604801")],
        *[(name, "0") for name in ("CONNECT_TIMEOUT", "READ_TIMEOUT", "MAX_ATTEMPTS")],
        *[(name, text) for name in ("MAX_ATTEMPTS", "MAX_LOST_RESPONSES") for text in ("1.5", "1e1", "1001")],
        *[(name, "maybe") for name in ("TLS_VERIFY", "FAIL_ON_NO_PROGRESS", "LOG_LEVEL", "LOG_FORMAT")],
        ("AUTH_GRANT_TYPE", "implicit"),
        ("AUTH_CLIENT_AUTH", "digest"),
        ("TLS_CA_FILE", "/does/not/exist.pem"),
        ("TLS_CA_FILE", "/"),
        ("TLS_CA_FILE", __file__),
        *[(name, "a\nb") for name in ("CLIENT_NAME", "AUTH_CLIENT_ID", "AUTH_USERNAME", "AUTH_SCOPE")],
        *[("CLIENT_NAME", text) for text in (".", "..", "a\x7fb", "a\x00b")],
        ("OUTPUT_DIR", "a\x00b"),
        ("TLS_CA_FILE", "a\x00b"),
        ("CLIENT_NAME", "\udcff"),
        ("AUTH_PASSWORD", "\udcff"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_source(places: Places, name: str, text: str) -> None:
    assert places.problem(**{name: text}).startswith(f"{name} (from environment) ")


@pytest.mark.parametrize("value", ['"SBAC_PT"', "'SBAC_PT'", "SBAC_PT  # the client"])
def test_a_client_name_in_quotes_or_with_a_comment_is_refused(places: Places, value: str) -> None:
    (problem,) = places.read(CLIENT_NAME=value).problems
    assert "CLIENT_NAME" in problem


@pytest.mark.parametrize("value", ["SBAC/PT", "/SBAC", "../../SBAC", "SBAC;PT", "SBAC;"])
def test_a_client_name_that_proctor_rejects_or_cuts_is_refused(places: Places, value: str) -> None:
    problem = places.problem(CLIENT_NAME=value)
    assert problem.startswith(f"CLIENT_NAME (from environment) is {value!r}")
    assert "Proctor" in problem


@pytest.mark.parametrize("name", ["PROCTOR_URL", "AUTH_URL", "HEARTBEAT_URL"])
@pytest.mark.parametrize(
    "text",
    [
        "ftp://example.org",
        "//example.org",
        "https://",
        "http:///x",
        "://",
        "?",
        "https://[::1",
        "https://a b.org",
        "https://a.org/a b",
        "https://a.org\\x",
        "https://exa\nmple.org",
        "https://example.org/\x00",
        "https://example.org/\x7f",
        "https://example.org:port",
        "https://example.org:0",
        "https://example.org:99999",
        "https://example.org/#part",
        "<https://example.org>",
        '"https://example.org"',
        "https://user@example.org",
        f"https://user:{SECRET}@example.org",
    ],
)
def test_what_is_not_the_url_of_a_service_is_refused_without_being_shown(places: Places, name: str, text: str) -> None:
    problem = places.problem(**{name: text})
    assert problem.startswith(f"{name} (from environment) ")
    assert SECRET not in problem


@pytest.mark.parametrize(
    ("proctor_url", "expire_url"),
    [
        (text, "https://proctor.example.org/proctor/Services/exams/expire/SBAC_PT")
        for text in (
            "proctor.example.org",
            "https://proctor.example.org",
            "https://proctor.example.org/",
            "https://proctor.example.org/proctor",
            "https://proctor.example.org/proctor/",
            "https://proctor.example.org/proctor/Services/exams/expire",
            "https://proctor.example.org/proctor/Services/exams/expire/",
            "https://proctor.example.org/proctor/Services/exams/expire/SBAC_PT",
            "https://proctor.example.org/proctor/Services/exams/expire/SBAC%5FPT/",
            "proctor.example.org/proctor/Services/exams/expire/",
        )
    ]
    + [
        ("proctor:8080", "https://proctor:8080/proctor/Services/exams/expire/SBAC_PT"),
        ("http://[::1]:8080/tds/", "http://[::1]:8080/tds/Services/exams/expire/SBAC_PT"),
        ("https://example.org/a/b", "https://example.org/a/b/Services/exams/expire/SBAC_PT"),
        ("https://example.org/Services/exams/expire/", "https://example.org/Services/exams/expire/SBAC_PT"),
    ],
)
def test_proctor_is_found_by_host_by_context_path_or_by_the_whole_old_endpoint(
    places: Places, proctor_url: str, expire_url: str
) -> None:
    assert places.read(PROCTOR_URL=proctor_url).settings().expire_url == expire_url


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("https://proctor.example.org/proctor/Services/exams/expire/SBAC", "a client name other than"),
        ("https://proctor.example.org/?client=SBAC_PT", "'?'"),
        ("https://user@proctor.example.org", "user name or password"),
        ("https://proctor.example.org/#SBAC_PT", "'#'"),
    ],
)
def test_a_proctor_url_with_too_much_in_it_is_refused(places: Places, text: str, hint: str) -> None:
    assert hint in places.problem(PROCTOR_URL=text)


@pytest.mark.parametrize(
    ("environment", "hint"),
    [
        ({"TLS_VERIFY": "off"}, "TLS_VERIFY is off"),
        ({"PROCTOR_URL": "http://proctor.example.org"}, "PROCTOR_URL is http"),
        ({"AUTH_URL": "http://sso.example.org/token"}, "AUTH_URL is http"),
        ({"HEARTBEAT_URL": f"http://hc.example.org/{SECRET_PATH}"}, "HEARTBEAT_URL is http"),
        ({"CLIENT_NAME": "SBAC.PT"}, "CLIENT_NAME contains a dot"),
        ({"CLIENT_NAME": "SBAC PT"}, "CLIENT_NAME contains a space"),
    ],
)
def test_what_is_doubtful_is_warned_of(places: Places, environment: dict[str, str], hint: str) -> None:
    (warning,) = places.read(**environment).warnings
    assert hint in warning
    assert SECRET_PATH not in warning


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080"])
def test_http_on_this_machine_is_not_warned_of(places: Places, host: str) -> None:
    urls = dict.fromkeys(("PROCTOR_URL", "AUTH_URL", "HEARTBEAT_URL"), f"http://{host}/path")
    assert places.read(**urls).warnings == []


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "form", ["{}", " {} ", '"{}"', "{}\udcff", "https://example.org/{}", "https://u:{}@a.org", "{}\n"]
)
def test_a_secret_is_never_shown(places: Places, name: str, form: str) -> None:
    configuration = places.read(**{name: form.format(SECRET)})
    assert SECRET not in everything_shown(configuration)
    if not configuration.problems:
        assert SECRET not in repr(configuration.settings())


@pytest.mark.parametrize("text", [f" {SECRET}", f"{SECRET}\n", f'"{SECRET}"', f"'{SECRET}'"])
def test_white_space_and_quotes_around_a_secret_are_kept_and_warned_of(places: Places, text: str) -> None:
    configuration = places.read(AUTH_PASSWORD=text)
    assert configuration.settings().auth_password == text
    (warning,) = configuration.warnings
    assert warning.startswith("AUTH_PASSWORD (from environment)")


def test_settings_cannot_be_changed_but_a_copy_can_differ(places: Places) -> None:
    settings = places.read().settings()
    with pytest.raises(FrozenInstanceError):
        settings.max_attempts = 1  # type: ignore[misc]
    assert (replace(settings, max_attempts=1).max_attempts, settings.max_attempts) == (1, 10)


def test_every_setting_is_listed_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"{name}=" not in example] == []


def test_the_example_shows_the_defaults() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^#([A-Z_]+)=(.+)$", example, re.MULTILINE))
    defaults = {name: declaration.default for name, declaration in DECLARATIONS.items() if declaration.default}
    assert {name: text for name, text in shown.items() if name in NAMES} == defaults


def test_every_setting_is_in_the_table_of_defaults_above() -> None:
    assert {*DEFAULTS, *REQUIRED} == set(NAMES)


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed: dict[str, str] = {}
    for names, default in re.findall(r"^\| `([A-Z_`, ]+)` \| ([^|]*) \|.*\|$", readme, re.MULTILINE):
        each = names.split("`, `")
        defaults = default.split(", ") if ", " in default else [default] * len(each)
        listed.update(zip(each, defaults, strict=True))
    for name, declaration in DECLARATIONS.items():
        if declaration.default == "":  # in words, such as "none" or "required for `password`"
            assert re.match("[a-z]+", listed[name])
            assert listed[name] != "required"
        else:
            assert listed[name] == (f"`{declaration.default}`" if declaration.default else "required")
