"""The access token: how it is requested, kept and renewed."""

from base64 import b64decode

import pytest

from tests.servers import in_turn, json_response, responding, response, serving
from tests.support import Jobs, Run, Simulate

FORM = "application/x-www-form-urlencoded"
SPECIAL = [" $HOME ${X} ", "a&b=c%25%+d", "pässwörd 日本", "\"'`\\:;/?#@[]", "line\r\nbreak\t"]


@pytest.mark.parametrize(("client_auth", "endpoint"), [("post", "openam"), ("post", "keycloak"), ("basic", "keycloak")])
@pytest.mark.parametrize("special", SPECIAL)
def test_credentials_with_special_characters_arrive_complete(
    simulate: Simulate, run: Run, client_auth: str, endpoint: str, special: str
) -> None:
    name = f"<{special}>" if special.isprintable() else "plain"
    credentials = {"client_id": name, "client_secret": f"s{special}", "username": name, "password": special}
    simulator = simulate(exams=1, credentials=credentials, token_endpoint=endpoint)
    result = run(simulator, AUTH_CLIENT_AUTH=client_auth)
    assert result.code == 0
    assert len(result.exam_ids) == 1


def test_http_basic_percent_encodes_id_and_secret(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=1)
    with serving(responding(lambda _: json_response({"access_token": simulator.grant()[0]}))) as server:
        settings = {"AUTH_CLIENT_ID": "my client", "AUTH_CLIENT_SECRET": "a b:c+d%é"}
        result = run(simulator, AUTH_URL=f"{server.url}/token", AUTH_CLIENT_AUTH="basic", **settings)
    assert result.code == 0
    (request,) = server.requests
    kind, _, credentials = request.headers["Authorization"].partition(" ")
    assert (kind, b64decode(credentials)) == ("Basic", b"my%20client:a%20b%3Ac%2Bd%25%C3%A9")


@pytest.mark.parametrize("fault_free", [True, False])
def test_openam_takes_http_basic_where_nothing_needs_to_be_encoded(
    simulate: Simulate, run: Run, fault_free: bool
) -> None:
    credentials = {"client_id": "client", "client_secret": "secret" if fault_free else "se cret"}
    simulator = simulate(exams=1, credentials={**credentials, "username": "user", "password": "password"})
    result = run(simulator, AUTH_CLIENT_AUTH="basic")
    assert result.code == (0 if fault_free else 77)
    if not fault_free:
        assert "invalid_client" in result.message
        assert "with OpenAM, use post" in result.message


@pytest.mark.parametrize(
    ("settings", "fields", "has_basic"),
    [
        ({}, {"grant_type", "username", "password", "client_id", "client_secret"}, False),
        (
            {"AUTH_SCOPE": "proctor openid"},
            {"grant_type", "scope", "username", "password", "client_id", "client_secret"},
            False,
        ),
        ({"AUTH_CLIENT_AUTH": "basic"}, {"grant_type", "username", "password"}, True),
        ({"AUTH_GRANT_TYPE": "client_credentials"}, {"grant_type", "client_id", "client_secret"}, False),
        (
            {"AUTH_GRANT_TYPE": "client_credentials", "AUTH_CLIENT_AUTH": "basic", "AUTH_SCOPE": "proctor openid"},
            {"grant_type", "scope"},
            True,
        ),
    ],
)
def test_a_token_request_is_a_form_of_these_fields(
    simulate: Simulate, run: Run, settings: dict[str, str], fields: set[str], has_basic: bool
) -> None:
    simulator = simulate(exams=1)
    with serving(responding(lambda _: json_response({"access_token": simulator.grant()[0]}))) as server:
        result = run(simulator, AUTH_URL=f"{server.url}/token?realm=/sbac", **settings)
    assert result.code == 0
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/token?realm=/sbac")
    assert request.form.keys() == fields
    assert request.form["grant_type"] == settings.get("AUTH_GRANT_TYPE", "password")
    assert request.form.get("scope") == settings.get("AUTH_SCOPE")
    assert request.headers["Content-Type"] == FORM
    assert request.headers.get("Authorization", "").startswith("Basic ") == has_basic


def test_one_token_serves_a_whole_run(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=50, limit=10)
    assert run(simulator).code == 0
    assert simulator.token_requests == 1


def test_a_token_about_to_expire_is_renewed_before_the_call(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=50, limit=10)
    with serving(
        responding(lambda _: json_response({"access_token": simulator.grant()[0], "expires_in": 1e-9}))
    ) as server:
        result = run(simulator, AUTH_URL=server.url)
    assert result.code == 0
    assert len(server.requests) == len(simulator.record) == 5
    assert result.events("token_rejected") == []


@pytest.mark.parametrize("expires_in", ["3600", '"3600"', "0", "-1", "null", '"soon"', "NaN", "9" * 400])
def test_a_malformed_lifetime_of_a_token_does_not_stop_a_run(simulate: Simulate, run: Run, expires_in: str) -> None:
    simulator = simulate(exams=20, limit=10)
    text = '{"access_token": "%s", "expires_in": %s}'
    with serving(responding(lambda _: response(200, (text % (simulator.grant()[0], expires_in)).encode()))) as server:
        result = run(simulator, AUTH_URL=server.url, LOG_LEVEL="DEBUG")
    assert result.code == 0
    assert len(result.exam_ids) == 20


@pytest.mark.parametrize("fault", "500 503 503:0 429:date server_error temporarily_unavailable reset silence".split())
def test_a_token_endpoint_that_is_down_for_a_moment_is_asked_again(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=5, token_faults=[fault])
    result = run(simulator, READ_TIMEOUT="1")
    assert (result.code, result.summary["lost"]) == (0, [])
    assert len(result.exam_ids) == 5
    assert simulator.token_requests == 2


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable"])
@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_transient_oauth_error_is_one_whatever_its_status(
    simulate: Simulate, run: Run, error: str, status: int
) -> None:
    simulator = simulate(exams=5)
    responses = [json_response({"error": error}, status), json_response({"access_token": simulator.grant()[0]})]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulator, AUTH_URL=server.url)
    assert (result.code, len(result.exam_ids), len(server.requests)) == (0, 5, 2)
    assert error in result.events("retry")[0]["reason"]


@pytest.mark.parametrize("client_auth", ["post", "basic"])
def test_other_credentials_in_a_netrc_are_not_used(simulate: Simulate, jobs: Jobs, run: Run, client_auth: str) -> None:
    netrc = jobs.directory / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\ndefault login someone password else\n")
    netrc.chmod(0o600)
    simulator = simulate(exams=5)
    result = run(simulator, AUTH_CLIENT_AUTH=client_auth, NETRC=str(netrc))
    assert result.code == 0
    assert len(result.exam_ids) == 5
