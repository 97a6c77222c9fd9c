"""Every setting: where it may come from, what it may be, and how all that is wrong is told without a secret."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app import settings
from app.settings import NAMES, Configuration
from app.simulator import Simulator
from tests.conftest import ROOT, Jobs, Result, expired

Simulate = Callable[..., Simulator]
Run = Callable[..., Result]

SECRET = "hunter2-Ünïque-$HOME"
REQUIRED = {
    "PROCTOR_URL": "https://proctor.example.org",
    "CLIENT_NAME": "SBAC_PT",
    "AUTH_URL": "https://sso.example.org/auth/oauth2/access_token?realm=/sbac",
    "AUTH_CLIENT_ID": "client",
    "AUTH_CLIENT_SECRET": SECRET,
    "AUTH_USERNAME": "user@example.org",
    "AUTH_PASSWORD": SECRET,
}
SECRETS = ["AUTH_CLIENT_SECRET", "AUTH_PASSWORD", "HEARTBEAT_URL"]
DAY = 86_400


class Places:
    """Where settings may come from: an environment, a directory of secrets, and a .env."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.secrets = root / "secrets"
        self.secrets.mkdir()
        self.dotenv = root / ".env"

    def write_secret(self, name: str, content: bytes) -> Path:
        path = self.secrets / name.lower()
        path.write_bytes(content)
        return path

    def write_dotenv(self, content: str | bytes, mode: int = 0o600) -> None:
        self.dotenv.write_bytes(content.encode() if isinstance(content, str) else content)
        self.dotenv.chmod(mode)

    def read(self, **environment: str | None) -> Configuration:
        """What is found with the required settings in the environment, but for those given as None."""
        present = {name: value for name, value in {**REQUIRED, **environment}.items() if value is not None}
        return settings.read(present, self.secrets, self.dotenv)

    def value(self, name: str, text: str) -> Any:
        """What a good text makes of a setting."""
        configuration = self.read(**{name: text})
        assert configuration.problems == []
        assert configuration.sources[name] == "environment"
        return getattr(configuration.settings(), name.lower())

    def problem(self, **environment: str | None) -> str:
        """The one problem of a configuration."""
        (problem,) = self.read(**environment).problems
        return problem


def said(configuration: Configuration) -> str:
    """Everything that a configuration tells about itself, in all the ways it has."""
    shown = [configuration.shown(name) for name in NAMES]
    return "\n".join([*configuration.problems, *configuration.warnings, *shown, *configuration.sources.values()])


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("AUTH_GRANT_TYPE", "password"),
        ("AUTH_CLIENT_AUTH", "post"),
        ("AUTH_SCOPE", None),
        ("TLS_VERIFY", True),
        ("TLS_CA_FILE", None),
        ("CONNECT_TIMEOUT", 10),
        ("READ_TIMEOUT", 300),
        ("MAX_ATTEMPTS", 5),
        ("MAX_WAIT", 60),
        ("MAX_LOST_RESPONSES", 2),
        ("MAX_RUNTIME", 0),
        ("FAIL_ON_NO_PROGRESS", False),
        ("OUTPUT_DIR", None),
        ("LOG_LEVEL", "INFO"),
        ("LOG_FORMAT", "text"),
        ("HEARTBEAT_URL", None),
    ],
)
@pytest.mark.parametrize("left_out", [None, ""])
def test_a_setting_left_out_or_empty_has_its_default(
    places: Places, name: str, default: object, left_out: str | None
) -> None:
    configuration = places.read(**{name: left_out})
    assert configuration.problems == configuration.warnings == []
    assert configuration.sources[name] == "default"
    assert getattr(configuration.settings(), name.lower()) == default


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
    assert configuration.problems or configuration.sources[name] == "default"


def test_the_grant_type_client_credentials_needs_no_user(places: Places) -> None:
    configuration = places.read(AUTH_GRANT_TYPE="client_credentials", AUTH_USERNAME=None, AUTH_PASSWORD=None)
    assert configuration.problems == []
    assert configuration.settings().auth_username is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("CLIENT_NAME", "  SBAC PT ", "SBAC PT"),
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
def test_a_good_value_is_taken_as_it_is_meant(places: Places, name: str, text: str, value: object) -> None:
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
def test_what_is_no_url_of_a_service_is_refused_unseen(places: Places, name: str, text: str) -> None:
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
        ("https://proctor.example.org/proctor/Services/exams/expire/SBAC", "another client name"),
        ("https://proctor.example.org/?client=SBAC_PT", "'?'"),
        ("https://user@proctor.example.org", "user name or password"),
        ("https://proctor.example.org/#SBAC_PT", "'#'"),
    ],
)
def test_a_proctor_url_with_too_much_in_it_is_refused(places: Places, text: str, hint: str) -> None:
    assert hint in places.problem(PROCTOR_URL=text)


def test_the_first_place_that_has_a_setting_wins(places: Places) -> None:
    places.write_dotenv("MAX_WAIT=3\nMAX_ATTEMPTS=3\nMAX_RUNTIME=3\n")
    secret = places.write_secret("MAX_WAIT", b"2")
    places.write_secret("MAX_ATTEMPTS", b"2")
    configuration = places.read(MAX_WAIT="1")
    assert [configuration.values[name] for name in ("MAX_WAIT", "MAX_ATTEMPTS", "MAX_RUNTIME")] == [1, 2, 3]
    assert configuration.sources["MAX_WAIT"] == "environment"
    assert configuration.sources["MAX_ATTEMPTS"] == str(secret.with_name("max_attempts"))
    assert configuration.sources["MAX_RUNTIME"] == str(places.dotenv)


def test_an_empty_value_leaves_a_setting_to_the_next_place(places: Places) -> None:
    places.write_secret("MAX_WAIT", b"\n")
    places.write_dotenv("MAX_WAIT=3\n")
    assert places.read(MAX_WAIT="").values["MAX_WAIT"] == 3


@pytest.mark.parametrize("where", ["environment", "dotenv"])
def test_a_setting_may_be_read_from_the_file_that_its_name_with_file_names(places: Places, where: str) -> None:
    file = places.root / "password"
    file.write_text(SECRET)
    if where == "dotenv":
        places.write_dotenv(f"AUTH_PASSWORD_FILE={file}\n")
        configuration = places.read(AUTH_PASSWORD=None)
    else:
        configuration = places.read(AUTH_PASSWORD=None, AUTH_PASSWORD_FILE=str(file))
    assert configuration.settings().auth_password == SECRET
    assert configuration.sources["AUTH_PASSWORD"] == str(file)


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_and_its_file_are_not_both_set(places: Places, name: str) -> None:
    places.write_dotenv(f"{name}={SECRET}\n{name}_FILE=/anything\n")
    clash = f"{name} and {name}_FILE are both set"
    assert clash in places.problem(**{name: REQUIRED.get(name, "1"), f"{name}_FILE": "/anything"})
    assert any(clash in problem for problem in places.read(**{name: None}).problems)


def test_the_environment_wins_over_a_file_that_only_the_dotenv_names(places: Places) -> None:
    places.write_dotenv("AUTH_PASSWORD_FILE=/only/on/another/machine\n")
    assert places.read().problems == []


def test_the_environment_wins_over_a_secret_file_that_cannot_be_read(places: Places) -> None:
    (places.secrets / "auth_password").mkdir()
    assert places.read().problems == []


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b"secret\n\n", "secret\n"),
        (b"secret\r\n\r\n", "secret\r\n"),
        (b"secret\r", "secret\r"),
        (b"secret \n", "secret "),
        (b"\nsecret", "\nsecret"),
        (b"se\ncret", "se\ncret"),
        ("pässwörd\n".encode(), "pässwörd"),
        (b"x" * 65_535 + b"\n", "x" * 65_535),
    ],
)
def test_a_secret_file_loses_one_line_break_at_its_end_and_nothing_else(
    places: Places, content: bytes, value: str
) -> None:
    places.write_secret("AUTH_PASSWORD", content)
    assert places.read(AUTH_PASSWORD=None).settings().auth_password == value


def bad_files(root: Path) -> Iterator[tuple[str, Path]]:
    """What cannot be a secret file, and what is said about it."""
    (root / "loop").symlink_to("loop")
    (root / "latin-1").write_bytes("pässwörd".encode("latin-1"))
    (root / "large").write_bytes(b"x" * 65_537)
    yield "cannot be read", root
    yield "cannot be read", root / "loop"
    yield "not UTF-8", root / "latin-1"
    yield "larger than", root / "large"
    yield "larger than", Path("/dev/zero")


def test_a_secret_file_that_cannot_be_used_is_a_problem_in_every_place(places: Places) -> None:
    for hint, path in bad_files(places.root):
        problem = places.problem(AUTH_PASSWORD=None, AUTH_PASSWORD_FILE=str(path))
        assert problem.startswith("AUTH_PASSWORD_FILE")
        assert hint in problem
        (places.secrets / "auth_password").symlink_to(path)
        assert hint in places.problem(AUTH_PASSWORD=None)
        (places.secrets / "auth_password").unlink()
        places.dotenv.symlink_to(path)
        assert hint in places.problem()
        places.dotenv.unlink()


def test_a_secret_file_that_is_missing_is_a_problem_only_where_it_is_named(places: Places) -> None:
    missing = str(places.root / "missing")
    problem = places.problem(AUTH_PASSWORD=None, AUTH_PASSWORD_FILE=missing)
    assert "AUTH_PASSWORD_FILE" in problem
    assert "does not exist" in problem
    assert missing not in problem  # it may be the password itself
    assert places.problem(AUTH_PASSWORD=None).startswith("AUTH_PASSWORD is not set")


def test_all_problems_are_told_at_once(places: Places) -> None:
    places.write_dotenv("this is nothing\nMAX_WAIT=soon\n")
    (places.secrets / "auth_scope").mkdir()
    wrong = {"PROCTOR_URL": "ftp://example.org", "CLIENT_NAME": None, "LOG_LEVEL": "loud", "AUTH_USERNAME": None}
    problems = places.read(**wrong, AUTH_PASSWORD_FILE="/x").problems
    for name in [*wrong, "MAX_WAIT", "AUTH_SCOPE", "AUTH_PASSWORD", "line 1"]:
        assert sum(name in problem for problem in problems) == 1
    assert len(problems) == len(wrong) + 4


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "form", ["{}", " {} ", '"{}"', "{}\udcff", "https://example.org/{}", "https://u:{}@a.org", "{}\n"]
)
def test_a_secret_is_never_shown(places: Places, name: str, form: str) -> None:
    configuration = places.read(**{name: form.format(SECRET)})
    assert SECRET not in said(configuration)
    if not configuration.problems:
        assert SECRET not in repr(configuration.settings())


@pytest.mark.parametrize("text", [f" {SECRET}", f"{SECRET}\n", f'"{SECRET}"', f"'{SECRET}'"])
def test_white_space_and_quotes_around_a_secret_are_kept_and_warned_of(places: Places, text: str) -> None:
    configuration = places.read(AUTH_PASSWORD=text)
    assert configuration.settings().auth_password == text
    (warning,) = configuration.warnings
    assert warning.startswith("AUTH_PASSWORD (from environment)")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("AUTH_PASSWORD=$HOME ${HOME} $$", "$HOME ${HOME} $$"),
        ('AUTH_PASSWORD="$HOME ${HOME}"', "$HOME ${HOME}"),
        ("AUTH_PASSWORD='pass # word'", "pass # word"),
        ("AUTH_PASSWORD=pass#word # a comment", "pass#word"),
        ("export AUTH_PASSWORD=secret", "secret"),
        ("  AUTH_PASSWORD = secret  ", "secret"),
        ("# AUTH_PASSWORD=other\n\nAUTH_PASSWORD=secret", "secret"),
        ('AUTH_PASSWORD="two\nlines"', "two\nlines"),
        ("AUTH_PASSWORD=a=b==", "a=b=="),
        ("AUTH_PASSWORD=first\nAUTH_PASSWORD=last", "last"),
        ("AUTH_PASSWORD=pässwörd", "pässwörd"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_dotenv_is_read_literally(places: Places, line: str, value: str, line_end: str) -> None:
    places.write_dotenv(f"MAX_WAIT=1\n{line}\nMAX_ATTEMPTS=2\n".replace("\n", line_end))
    configuration = places.read(AUTH_PASSWORD=None)
    assert configuration.problems == []
    taken_off = any(mark in line for mark in ('"', "'", " # a comment"))  # which docker would keep
    assert ["taken off" in warning for warning in configuration.warnings] == [True] * taken_off
    assert configuration.settings().auth_password == value.replace("\n", line_end)
    assert (configuration.values["MAX_WAIT"], configuration.values["MAX_ATTEMPTS"]) == (1, 2)


@pytest.mark.parametrize(
    "line", [SECRET, "MAX_WAIT", "=1", "MAX WAIT=1", f"AUTH_PASSWORD: {SECRET}", "AUTH_PASSWORD='open"]
)
def test_a_line_in_a_dotenv_that_sets_nothing_is_named_by_its_number(places: Places, line: str) -> None:
    places.write_dotenv(f"# a comment\n{line}\nMAX_ATTEMPTS=2\n")
    configuration = places.read()
    assert any("line 2" in problem for problem in configuration.problems)
    assert SECRET not in said(configuration)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_dotenv_that_others_may_read_is_warned_of(places: Places, mode: int, warned: bool) -> None:
    places.write_dotenv("MAX_WAIT=1\n", mode)
    assert any("chmod 600" in warning for warning in places.read().warnings) == warned


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AUTH_PASWORD", "AUTH_PASSWORD"),
        ("client_name", "CLIENT_NAME"),
        ("READTIMEOUT", "READ_TIMEOUT"),
        ("ENDPOINT", "PROCTOR_URL"),
        ("SSL_CHECKS", "TLS_VERIFY"),
        ("AUTH_ENDPOINT", "AUTH_URL"),
        ("AUTH_PAYLOAD", "AUTH_CLIENT_ID, AUTH_CLIENT_SECRET, AUTH_USERNAME and AUTH_PASSWORD"),
    ],
)
def test_an_unknown_name_in_a_dotenv_is_warned_of_with_the_one_that_may_be_meant(
    places: Places, name: str, hint: str
) -> None:
    places.write_dotenv(f"# a comment\n{name}={SECRET}\n")
    (warning,) = places.read().warnings
    assert "line 2" in warning
    assert name in warning
    assert hint in warning
    assert SECRET not in warning


def test_an_unknown_name_that_resembles_none_is_not_told_as_it_may_be_a_piece_of_a_secret(places: Places) -> None:
    places.write_dotenv("AUTH_PASSWORD=first\nHUNTER2SECRETPIECE==\n")
    (warning,) = places.read().warnings
    assert "line 2" in warning
    assert "HUNTER2" not in warning


@pytest.mark.parametrize("value", ['"SBAC_PT"', "'SBAC_PT'", "SBAC_PT  # the client"])
def test_a_client_name_that_is_still_wrapped_is_refused(places: Places, value: str) -> None:
    (problem,) = places.read(CLIENT_NAME=value).problems
    assert "CLIENT_NAME" in problem


def test_settings_of_the_old_script_in_the_environment_are_warned_of(places: Places) -> None:
    warnings = places.read(SSL_CHECKS="False", AUTH_PAYLOAD=SECRET).warnings
    assert ["TLS_VERIFY" in warning or "AUTH_PASSWORD" in warning for warning in warnings] == [True, True]
    assert not any(SECRET in warning for warning in warnings)


def test_what_else_an_environment_holds_does_not_matter(places: Places) -> None:
    of_kubernetes = {
        "PROCTOR_PORT": "tcp://10.0.0.1:80",
        "PROCTOR_HOST": "10.0.0.1",
        "PROCTOR_SERVICE_HOST": "10.0.0.1",
        "PROCTOR_SERVICE_PORT": "80",
        "PROCTOR_PORT_80_TCP_ADDR": "10.0.0.1",
        "ENDPOINT": "https://old.example.org",
    }
    assert vars(places.read(**of_kubernetes)) == vars(places.read())


@pytest.mark.parametrize(
    ("environment", "hint"),
    [
        ({"TLS_VERIFY": "off"}, "TLS_VERIFY is off"),
        ({"PROCTOR_URL": "http://proctor.example.org"}, "PROCTOR_URL is http"),
        ({"AUTH_URL": "http://sso.example.org/token"}, "AUTH_URL is http"),
        ({"CLIENT_NAME": "SBAC.PT"}, "CLIENT_NAME holds a dot"),
    ],
)
def test_what_is_doubtful_is_warned_of(places: Places, environment: dict[str, str], hint: str) -> None:
    (warning,) = places.read(**environment).warnings
    assert hint in warning


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080"])
def test_http_on_this_machine_is_not_warned_of(places: Places, host: str) -> None:
    assert places.read(PROCTOR_URL=f"http://{host}", AUTH_URL=f"http://{host}/token").warnings == []


def test_every_setting_stands_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"{name}=" not in example] == []


texts = st.text(st.characters(exclude_categories=(), exclude_characters="\0"), max_size=40) | st.sampled_from(
    [
        "https://proctor.example.org/x",
        "true",
        "1",
        "nan",
        "-1",
        "client_credentials",
        "/dev/zero",
        "/",
        "[",
        "https://[",
    ]
)
names = st.sampled_from([name + suffix for name in NAMES for suffix in ("", "_FILE")])
lines = st.tuples(names | texts, st.sampled_from(["=", "='", '="', ": ", ""]), texts).map("".join)
files = st.binary(max_size=60) | st.lists(lines, max_size=5).map(
    lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
)


@examples(deadline=None, max_examples=200)
@given(st.dictionaries(names, texts, max_size=8), st.dictionaries(st.sampled_from(NAMES), files, max_size=3), files)
def test_whatever_stands_in_the_places_is_a_setting_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], secrets: dict[str, bytes], dotenv: bytes
) -> None:
    places = Places(tmp_path_factory.mktemp("places"))
    for name, content in secrets.items():
        places.write_secret(name, content)
    places.write_dotenv(dotenv)
    configuration = places.read(**dict.fromkeys(REQUIRED) | environment)
    assert configuration.problems or configuration.settings()


@examples(deadline=None, max_examples=200)
@given(st.sampled_from(SECRETS), texts, texts, st.sampled_from(["environment", "file", "secret", "dotenv"]))
def test_whatever_stands_around_a_secret_it_is_not_shown(
    tmp_path_factory: pytest.TempPathFactory, name: str, before: str, after: str, where: str
) -> None:
    places = Places(tmp_path_factory.mktemp("places"))
    value = f"{before}{SECRET}{after}"
    content = value.encode("utf-8", "surrogatepass")
    environment: dict[str, str | None] = {name: None}
    if where == "environment":
        environment[name] = value
    elif where == "file":
        environment[f"{name}_FILE"] = str(places.write_secret("elsewhere", content))
    elif where == "secret":
        places.write_secret(name, content)
    else:
        places.write_dotenv(f"{name}=".encode() + content)
    assert SECRET not in said(places.read(**environment))


def test_a_run_with_broken_settings_names_them_all_and_sends_nothing(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    wrong = {"CLIENT_NAME": "..", "MAX_WAIT": "nan", "AUTH_PASSWORD_FILE": "/x", "LOG_LEVEL": "loud"}
    result = run(simulator, **wrong)
    assert result.code == 78
    assert result.stdout == b""
    problems = " ".join(str(event["message"]) for event in result.events("settings"))
    assert all(name in problems for name in wrong)
    assert simulator.token_requests == 0
    assert simulator.record == []
    credentials = simulator.scenario.credentials
    for secret in ("Traceback", credentials["password"], credentials["client_secret"]):
        assert secret.encode() not in result.stderr


def test_a_run_takes_its_settings_from_the_dotenv_in_its_directory(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate(exams=3)
    dotenv = jobs.directory / ".env"
    dotenv.write_text("".join(f"{name}={value}\n" for name, value in simulator.settings().items()), encoding="utf-8")
    dotenv.chmod(0o600)
    result = jobs.run({})
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert b"WARNING" not in result.stderr


@pytest.mark.parametrize(
    "client_name",
    [
        "SBAC PT",
        "SBAC/PT",
        "SBAC%2FPT",
        "100%",
        "SBAC.PT",
        "...",
        "./SBAC",
        "../../SBAC",
        "Schüler",
        "日本",
        "a?b#c&d;e+f",
        "~",
    ],
)
def test_any_client_name_arrives_at_proctor_as_it_is(simulate: Simulate, run: Run, client_name: str) -> None:
    simulator = simulate(exams=3, client_name=client_name)
    result = run(simulator)
    assert result.code == 0
    assert len(expired(simulator)) == len(result.exam_ids) == 3


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port of this machine that nobody listens on, and nobody else gets."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_is_not_there_is_no_lost_answer(
    simulate: Simulate, run: Run, refused_port: int, variable: str
) -> None:
    simulator = simulate()
    result = run(simulator, **{variable: f"http://user:{SECRET}@127.0.0.1:{refused_port}", "LOG_LEVEL": "DEBUG"})
    assert result.code == 69
    assert "proxy" in result.message
    assert "hunter2" not in result.stderr.decode()
    assert simulator.token_requests == 0


@pytest.mark.parametrize(
    "proxy",
    [
        "http://[",
        "http://",
        "@@@",
        "http://hunter2:hunter2@",
        "http://us\u20acr:hunter2@127.0.0.1:1",
        "ftp://127.0.0.1:1",
        "socks5://127.0.0.1:1",
        "http://user:hunter2@127.0.0.1:99999",
    ],
)
def test_a_proxy_that_is_nonsense_is_a_wrong_setting(simulate: Simulate, run: Run, proxy: str) -> None:
    simulator = simulate()
    result = run(simulator, HTTP_PROXY=proxy, LOG_LEVEL="DEBUG")
    assert result.code == 78
    assert "HTTP_PROXY" in result.message
    assert b"hunter2" not in result.stderr
    assert simulator.token_requests == 0
