"""Where settings come from, in which order, and what is said of a source that cannot be used."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app.settings import NAMES
from tests.settings.places import REQUIRED, SECRET, SECRETS, Places, everything_shown


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    """A file of CA certificates: the first one that this machine trusts."""
    certificates = ssl.create_default_context().get_ca_certs(binary_form=True)
    path = tmp_path / "ca.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(certificates[0]))
    return path


def test_the_first_place_that_has_a_setting_wins(places: Places) -> None:
    places.write_dotenv("MAX_WAIT=3\nMAX_ATTEMPTS=3\nMAX_RUNTIME=3\n")
    secret = places.write_secret("MAX_WAIT", b"2")
    places.write_secret("MAX_ATTEMPTS", b"2")
    configuration = places.read(MAX_WAIT="1")
    assert [configuration[name].value for name in ("MAX_WAIT", "MAX_ATTEMPTS", "MAX_RUNTIME")] == [1, 2, 3]
    assert configuration["MAX_WAIT"].source == "environment"
    assert configuration["MAX_ATTEMPTS"].source == str(secret.with_name("max_attempts"))
    assert configuration["MAX_RUNTIME"].source == str(places.dotenv)


def test_an_empty_value_leaves_a_setting_to_the_next_place(places: Places) -> None:
    places.write_secret("MAX_WAIT", b"\n")
    places.write_dotenv("MAX_WAIT=3\n")
    assert places.read(MAX_WAIT="")["MAX_WAIT"].value == 3


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
    assert configuration["AUTH_PASSWORD"].source == str(file)


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
    """What cannot be a secret file, and what the problem says."""
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


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not hold for root")
def test_a_secrets_directory_that_is_not_accessible_is_ignored_with_a_warning(places: Places) -> None:
    places.write_secret("MAX_WAIT", b"1")
    places.secrets.chmod(0o600)
    try:
        configuration = places.read()
    finally:
        places.secrets.chmod(0o700)
    assert configuration["MAX_WAIT"].source == "default"
    (warning,) = configuration.warnings
    assert "is not accessible to this user and is ignored" in warning


def test_all_problems_are_reported_at_once(places: Places) -> None:
    places.write_dotenv("this is nothing\nMAX_WAIT=soon\n")
    (places.secrets / "auth_scope").mkdir()
    wrong = {"PROCTOR_URL": "ftp://example.org", "CLIENT_NAME": None, "LOG_LEVEL": "loud", "AUTH_USERNAME": None}
    problems = places.read(**wrong, AUTH_PASSWORD_FILE="/x").problems
    for name in [*wrong, "MAX_WAIT", "AUTH_SCOPE", "AUTH_PASSWORD", "line 1"]:
        assert sum(name in problem for problem in problems) == 1
    assert len(problems) == len(wrong) + 4


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
    removed = any(mark in line for mark in ('"', "'", " # a comment"))  # which docker would keep
    assert ["are removed here" in warning for warning in configuration.warnings] == [True] * removed
    assert configuration.settings().auth_password == value.replace("\n", line_end)
    assert (configuration["MAX_WAIT"].value, configuration["MAX_ATTEMPTS"].value) == (1, 2)


@pytest.mark.parametrize(
    "line", [SECRET, "MAX_WAIT", "=1", "MAX WAIT=1", f"AUTH_PASSWORD: {SECRET}", "AUTH_PASSWORD='open"]
)
def test_a_line_in_a_dotenv_that_sets_nothing_is_named_by_its_number(places: Places, line: str) -> None:
    places.write_dotenv(f"# a comment\n{line}\nMAX_ATTEMPTS=2\n")
    configuration = places.read()
    assert any("line 2" in problem for problem in configuration.problems)
    assert SECRET not in everything_shown(configuration)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_dotenv_that_others_may_read_is_warned_of(places: Places, mode: int, warned: bool) -> None:
    places.write_dotenv("MAX_WAIT=1\n", mode)
    assert any("chmod 600" in warning for warning in places.read().warnings) == warned


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AUTH_PASS", "AUTH_PASSWORD"),
        ("OAUTH_CLIENT_ID", "AUTH_CLIENT_ID"),
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


def test_an_unknown_name_that_resembles_none_is_not_shown_as_it_may_be_a_piece_of_a_secret(places: Places) -> None:
    places.write_dotenv("AUTH_PASSWORD=first\nHUNTER2SECRETPIECE==\n")
    (warning,) = places.read().warnings
    assert "line 2" in warning
    assert "HUNTER2" not in warning


@pytest.mark.parametrize(
    "name",
    """
        TZ SCHEDULE OUTPUT MAX_AGE DOCKER_SOCKET DOCKER_HOST COMPOSE_PROJECT_NAME COMPOSE_FILE
        HTTPS_PROXY https_proxy NO_PROXY ALL_PROXY
    """.split(),
)
def test_what_compose_and_proxies_need_may_be_in_a_dotenv(places: Places, name: str) -> None:
    places.write_dotenv(f"{name}=1\n")
    configuration = places.read()
    assert configuration.problems == configuration.warnings == []


def test_settings_of_the_old_script_in_the_environment_are_warned_of(places: Places) -> None:
    warnings = places.read(SSL_CHECKS="False", AUTH_PAYLOAD=SECRET).warnings
    assert ["TLS_VERIFY" in warning or "AUTH_PASSWORD" in warning for warning in warnings] == [True, True]
    assert not any(SECRET in warning for warning in warnings)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "https_proxy", "no_proxy"])
def test_a_proxy_in_a_dotenv_is_used_unless_the_environment_has_one(places: Places, name: str) -> None:
    places.write_dotenv(f"{name}=http://proxy.example.org\n")
    assert places.read().proxies == {name: "http://proxy.example.org"}
    for present in (name, name.lower(), name.upper()):
        assert places.read(**{present: "http://other.example.org"}).proxies == {}
        assert places.read(**{present: ""}).proxies == {}


def test_a_proxy_that_no_environment_can_hold_is_a_problem(places: Places) -> None:
    places.write_dotenv(f"HTTPS_PROXY=http://user:{SECRET}@proxy\x00\n")
    configuration = places.read()
    assert configuration.proxies == {}
    assert [problem.startswith("HTTPS_PROXY ") for problem in configuration.problems] == [True]
    assert SECRET not in everything_shown(configuration)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_ca_certificates_for_other_programs_are_used_from_the_dotenv_too(
    places: Places, name: str, ca_file: Path
) -> None:
    places.write_dotenv(f"{name}={ca_file}\n")
    configuration = places.read()
    assert configuration.settings().tls_ca_file == str(ca_file)
    assert configuration["TLS_CA_FILE"].source == name
    assert places.read(TLS_VERIFY="false").settings().tls_ca_file is None
    assert places.read(**{name: str(ca_file.parent)}).settings().tls_ca_file == str(ca_file.parent)


def test_ca_certificates_that_cannot_be_read_are_a_problem(places: Places) -> None:
    places.write_dotenv("SSL_CERT_FILE=/does/not/exist.pem\n")
    (problem,) = places.read().problems
    assert problem.startswith("SSL_CERT_FILE is '/does/not/exist.pem', which is not a file")


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
def test_whatever_is_in_the_sources_is_a_setting_or_a_problem(
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
def test_whatever_is_around_a_secret_it_is_not_shown(
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
    assert SECRET not in everything_shown(places.read(**environment))
