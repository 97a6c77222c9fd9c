"""A misspelt setting is a problem wherever it is, and what other programs put into an environment is none."""

import pytest

from app.settings import NAMES
from tests.settings.environments import ENVIRONMENTS
from tests.settings.places import SECRET, Places

MISSPELT = [
    ("READTIMEOUT", "READ_TIMEOUT"),
    ("OUTPUT_DRI", "OUTPUT_DIR"),
    ("OUTPUTDIR", "OUTPUT_DIR"),
    ("OUTPUT__DIR", "OUTPUT_DIR"),
    ("OUTPUT-DIR", "OUTPUT_DIR"),
    ("OUPTUT_DRI", "OUTPUT_DIR"),
    ("output_dir", "OUTPUT_DIR"),
    ("AUTH_PASWORD", "AUTH_PASSWORD"),
    ("AUTH_PASSWORDS", "AUTH_PASSWORD"),
    ("AUTH_USER_NAME", "AUTH_USERNAME"),
    ("AUTHCLIENTID", "AUTH_CLIENT_ID"),
    ("AUTH_URI", "AUTH_URL"),
    ("MAX_ATEMPTS", "MAX_ATTEMPTS"),
    ("MAX_ATTEMPT", "MAX_ATTEMPTS"),
    ("MAX_LOST_RESPONCES", "MAX_LOST_RESPONSES"),
    ("MAX_LOTS_REPSONSES", "MAX_LOST_RESPONSES"),
    ("PROCTOR_ULR", "PROCTOR_URL"),
    ("PROCTER_URL", "PROCTOR_URL"),
    ("TLS_VERFY", "TLS_VERIFY"),
    ("CLIENTNAME", "CLIENT_NAME"),
    ("HEARTBEAT_URL_", "HEARTBEAT_URL"),
    ("AUTH_CLIENT_SECRT_FILE", "AUTH_CLIENT_SECRET_FILE"),
    ("AUTH_PASSWORDFILE", "AUTH_PASSWORD_FILE"),
    ("TLS_CA_FLIE", "TLS_CA_FILE"),
]


@pytest.mark.parametrize(("name", "setting"), MISSPELT)
def test_a_misspelt_setting_in_the_environment_is_a_problem(places: Places, name: str, setting: str) -> None:
    problem = places.problem(**{name: SECRET})
    assert problem == f"{name} is not a known setting; did you mean {setting}?"


@pytest.mark.parametrize(("name", "setting"), MISSPELT)
def test_a_misspelt_setting_in_a_dotenv_is_a_problem_with_its_line(places: Places, name: str, setting: str) -> None:
    places.write_dotenv(f"# a comment\n{name}={SECRET}\n")
    configuration = places.read()
    assert configuration.problems == [
        f"{places.dotenv}, line 2: {name} is not a known setting; did you mean {setting}?"
    ]
    assert configuration.warnings == []


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("auth_pasword", "auth_password"),
        ("auth-password", "auth_password"),
        ("AUTH_PASSWORD", "auth_password"),
        ("authclientsecret", "auth_client_secret"),
    ],
)
def test_a_misspelt_file_in_the_secrets_directory_is_a_problem(places: Places, name: str, setting: str) -> None:
    (places.secrets / name).write_text(SECRET)
    assert places.problem() == (
        f"{places.secrets / name} is not a known setting; did you mean {places.secrets / setting}?"
    )


def test_other_files_in_the_secrets_directory_do_not_matter(places: Places) -> None:
    for name in ("kubernetes.io", "..data", "rhsm", "redhat.repo", "db_password", "oauth_client_id", "auth.json"):
        (places.secrets / name).write_text(SECRET)
    assert places.read() == places.read(LANG="C")
    assert places.read().problems == []


def test_a_misspelt_setting_is_one_problem_among_all_others(places: Places) -> None:
    problems = places.read(AUTH_PASSWORD=None, AUTH_PASWORD=SECRET, MAX_WAIT="soon").problems
    assert [problem.split()[0] for problem in problems] == ["AUTH_PASWORD", "MAX_WAIT", "AUTH_PASSWORD"]
    assert SECRET not in "".join(problems)


def test_a_required_setting_that_is_misspelt_is_also_reported_as_not_set(places: Places) -> None:
    for name, misspelt in (("AUTH_PASSWORD", "AUTH_PASSWORDS"), ("CLIENT_NAME", "CLIENT_NAMES")):
        problems = places.read(**{name: None, misspelt: "x"}).problems
        assert [problem.split(" is ")[0] for problem in problems] == [misspelt, name]


@pytest.mark.parametrize("name", [name + suffix for name in NAMES for suffix in ("", "_FILE")])
def test_every_setting_is_misspelt_with_any_letter_left_out(places: Places, name: str) -> None:
    for index in range(len(name)):
        if name[index] != "_":
            shortened = name[:index] + name[index + 1 :]
            assert any(problem.startswith(f"{shortened} is not") for problem in places.read(**{shortened: ""}).problems)


@pytest.mark.parametrize("family", ENVIRONMENTS)
def test_what_others_put_into_an_environment_is_no_misspelt_setting(places: Places, family: str) -> None:
    environment = dict.fromkeys(ENVIRONMENTS[family].split(), "")
    assert places.read(**environment).problems == []


@pytest.mark.parametrize(
    "service", ["proctor", "auth", "output", "force-submit", "client", "log", "max", "tls-ca", "read"]
)
def test_kubernetes_services_of_any_name_are_no_misspelt_settings(places: Places, service: str) -> None:
    prefix = service.upper().replace("-", "_")
    names = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "SERVICE_PORT_HTTPS", "PORT", "PORT_80_TCP", "HOST"]
    names += [f"PORT_80_TCP_{what}" for what in ("PROTO", "PORT", "ADDR")] + ["PORT_53_UDP", "ENV_PATH"]
    assert places.read(**{f"{prefix}_{name}": "tcp://10.0.0.1:80" for name in names}).problems == []


def test_the_name_of_a_remote_desktops_client_is_no_misspelt_setting(places: Places) -> None:
    assert places.read(CLIENTNAME="DESKTOP-1", SESSIONNAME="RDP-Tcp#0").problems == []


@pytest.mark.parametrize(
    "name",
    """
        MIN_WAIT MAX_AGE MAX_SIZE SEND_TIMEOUT RECONNECT_TIMEOUT CONNECTION_TIMEOUT MIN_RUNTIME MAX_UPTIME INPUT_DIR
        OUT_DIR OUTPUT_FILE LOG_DIR LOG_FILE AUTH_TOKEN AUTH_USER OAUTH_URL OAUTH_CLIENT_ID OAUTH_CLIENT_SECRET
        OAUTH_SCOPE CLIENT_ID CLIENT_SECRET TLS_CERT_FILE TLS_KEY_FILE SSL_VERIFY CONNECT_URL HEARTBEAT_INTERVAL
        MAX_MEMORY READ_ONLY LOGLEVEL PROCTOR_HOST PROCTOR_PORT DATABASE_URL AWS_MAX_ATTEMPTS
    """.split(),
)
def test_another_word_is_another_name(places: Places, name: str) -> None:
    assert places.read(**{name: "1"}).problems == []
