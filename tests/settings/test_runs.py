"""Settings as a run of the whole program meets them."""

import pytest

from tests.settings.places import SECRET
from tests.support import QUICK, Jobs, Run, Simulate, expired


def write_dotenv(jobs: Jobs, variables: dict[str, str]) -> None:
    """Write a `.env` into the directory of a job."""
    dotenv = jobs.directory / ".env"
    dotenv.write_text("".join(f"{name}={value}\n" for name, value in variables.items()), encoding="utf-8")
    dotenv.chmod(0o600)


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
    for secret in (
        "Traceback",
        simulator.scenario.credentials["password"],
        simulator.scenario.credentials["client_secret"],
    ):
        assert secret.encode() not in result.stderr


@pytest.mark.parametrize("where", ["environment", "dotenv"])
def test_a_run_with_a_misspelt_setting_sends_nothing(simulate: Simulate, jobs: Jobs, where: str) -> None:
    simulator = simulate()
    misspelt = {"OUTPUT_DRI": "/output"}
    if where == "dotenv":
        write_dotenv(jobs, misspelt)
    result = jobs.run({**simulator.settings(), **QUICK, **(misspelt if where == "environment" else {})})
    assert result.code == 78
    (problem,) = result.events("settings")
    assert problem["message"].endswith("OUTPUT_DRI is not a known setting; did you mean OUTPUT_DIR?")
    assert result.stdout == b""
    assert simulator.token_requests == 0
    assert simulator.record == []


def test_a_run_takes_its_settings_from_the_dotenv_in_its_directory(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate(exams=3)
    write_dotenv(jobs, simulator.settings())
    result = jobs.run({})
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert b"WARNING" not in result.stderr


@pytest.mark.parametrize(
    "client_name",
    [
        "SBAC PT",
        "SBAC%2FPT",
        "100%",
        "Schüler",
        "日本",
        "a?b#c&d+e",
        "~",
    ],
)
def test_a_client_name_reaches_proctor_as_it_is(simulate: Simulate, run: Run, client_name: str) -> None:
    simulator = simulate(exams=3, client_name=client_name)
    result = run(simulator)
    assert result.code == 0
    assert len(expired(simulator)) == len(result.exam_ids) == 3


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_is_not_there_is_not_a_lost_response(
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


def test_a_proxy_in_the_dotenv_is_used_by_a_run(simulate: Simulate, jobs: Jobs, refused_port: int) -> None:
    simulator = simulate()
    write_dotenv(jobs, {"HTTP_PROXY": f"http://127.0.0.1:{refused_port}", "MAX_ATTEMPTS": "1"})
    result = jobs.run({**simulator.settings(), **QUICK})
    assert result.code == 69
    assert "proxy" in result.message
    assert simulator.token_requests == 0


def test_the_environment_wins_over_a_proxy_in_the_dotenv(simulate: Simulate, jobs: Jobs, refused_port: int) -> None:
    simulator = simulate(exams=3)
    write_dotenv(jobs, {"http_proxy": f"http://127.0.0.1:{refused_port}", "NO_PROXY": "example.org"})
    assert jobs.run({**simulator.settings(), **QUICK, "HTTP_PROXY": ""}).code == 0
    assert jobs.run({**simulator.settings(), **QUICK, "no_proxy": "127.0.0.1"}).code == 0
    assert len(expired(simulator)) == 3


FIVE_FIELDS = "0 2 * * *"


@pytest.mark.parametrize("where", ["environment", "dotenv"])
@pytest.mark.parametrize(("schedule", "code"), [(FIVE_FIELDS, 78), ("0 0 2 * * *", 0), ('"0 0 2 * * *" # nightly', 0)])
def test_check_fails_where_ofelia_would_misunderstand_the_schedule(
    simulate: Simulate, jobs: Jobs, where: str, schedule: str, code: int
) -> None:
    simulator = simulate()
    environment = {**simulator.settings(), **QUICK}
    if where == "dotenv":
        write_dotenv(jobs, {"SCHEDULE": schedule})
    else:
        environment["SCHEDULE"] = schedule
    result = jobs.run(environment, "check")
    assert result.code == code
    failed = [line for line in result.stdout.decode().splitlines() if line.startswith("FAILED")]
    assert ["SCHEDULE='0 2 * * *' has five fields" in line for line in failed] == [True] * (code == 78)
    assert (simulator.token_requests == 0) == (code == 78)


def test_a_run_ignores_the_schedule(simulate: Simulate, run: Run) -> None:
    assert run(simulate(exams=3), SCHEDULE=FIVE_FIELDS).code == 0
