"""No token: what the message says to check, and that no secret is in it."""

import json
from base64 import b64encode
from html import escape
from urllib.parse import quote, quote_plus

import pytest

from tests.servers import json_response, responding, response, serving
from tests.support import Result, Run, Simulate, delivered, expired

SECRET = "hunter2-$&%+é"


def everything(result: Result) -> str:
    return (result.stdout + result.stderr).decode() + json.dumps(result.log, ensure_ascii=False)


@pytest.mark.parametrize("endpoint", ["openam", "keycloak"])
@pytest.mark.parametrize("wrong", ["client_id", "client_secret", "username", "password"])
def test_a_wrong_credential_ends_the_run_with_what_to_check_and_no_secret(
    simulate: Simulate, run: Run, endpoint: str, wrong: str
) -> None:
    simulator = simulate(token_endpoint=endpoint)
    result = run(simulator, LOG_LEVEL="DEBUG", **{f"AUTH_{wrong.upper()}": SECRET})
    assert result.code == 77
    assert f"AUTH_{wrong.upper()}" in result.message
    for secret in (SECRET, *(simulator.scenario.credentials[name] for name in ("client_secret", "password"))):
        assert secret not in everything(result)
    assert simulator.token_requests == 1  # a second attempt would help to lock the account
    assert simulator.record == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("invalid_scope", "AUTH_SCOPE"),
        ("unauthorized_client", "AUTH_GRANT_TYPE"),
        ("unsupported_grant_type", "AUTH_GRANT_TYPE"),
        ("invalid_client", "AUTH_CLIENT_ID and AUTH_CLIENT_SECRET"),
        ("invalid_grant", "AUTH_USERNAME and AUTH_PASSWORD"),
    ],
)
@pytest.mark.parametrize("status", [400, 401])
def test_each_oauth_error_names_the_settings_that_it_is_about(
    simulate: Simulate, run: Run, error: str, words: str, status: int
) -> None:
    with serving(responding(json_response({"error": error, "error_description": "No."}, status))) as server:
        result = run(simulate(), AUTH_URL=server.url)
    assert result.code == 77
    assert f"{status}, {error}, No. Check" in result.message
    assert words in result.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("client_auth", ["post", "basic"])
def test_only_with_http_basic_an_invalid_client_may_be_openams_decoding(
    simulate: Simulate, run: Run, client_auth: str
) -> None:
    result = run(simulate(token_faults=["invalid_client"]), AUTH_CLIENT_AUTH=client_auth)
    assert result.code == 77
    assert ("with OpenAM, use post" in result.message) == (client_auth == "basic")


def test_an_unknown_scope_is_a_matter_of_auth_scope(simulate: Simulate, run: Run) -> None:
    result = run(simulate(scopes="openid"), AUTH_SCOPE="openid proctor")
    assert result.code == 77
    assert "AUTH_SCOPE" in result.message


@pytest.mark.parametrize(
    ("endpoint", "realm", "reason"),
    [("openam", "/sbac", "There is no provider in this realm"), ("keycloak", "/sbac/", "Realm does not exist")],
)
def test_an_unknown_realm_shows_the_reason_and_what_to_check(
    simulate: Simulate, run: Run, endpoint: str, realm: str, reason: str
) -> None:
    simulator = simulate(token_endpoint=endpoint)
    url = simulator.settings()["AUTH_URL"].replace(realm, realm.replace("sbac", "other"))
    result = run(simulator, AUTH_URL=url)
    assert result.code == 78
    assert reason in result.message
    assert "the realm in AUTH_URL" in result.message
    assert simulator.token_requests == 1


def test_the_message_of_a_404_is_shown_where_it_has_no_description(simulate: Simulate, run: Run) -> None:
    content = {"code": 404, "reason": "Not Found", "message": "No OpenID Connect provider."}
    with serving(responding(json_response(content, 404))) as server:
        result = run(simulate(), AUTH_URL=server.url)
    assert (result.code, "No OpenID Connect provider" in result.message) == (78, True)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_the_token_endpoint_names_its_target(simulate: Simulate, run: Run, status: int) -> None:
    target = "https://sso.example.org/login?goto=here"
    with serving(responding(response(status, Location=target))) as server:
        result = run(simulate(), AUTH_URL=server.url)
    assert result.code == 78
    assert "redirects to https://sso.example.org/login. Set AUTH_URL" in result.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        *[(status, 77) for status in ("400", "401", "403")],
        *[(status, 78) for status in ("302", "307", "404", "405", "unknown-realm", "redirect")],
        *[(other, 76) for other in ("html", "no-token", "201", "418")],
    ],
)
def test_what_is_no_token_ends_the_run_at_once(simulate: Simulate, run: Run, fault: str, code: int) -> None:
    simulator = simulate(token_faults=[fault])
    result = run(simulator)
    assert result.code == code
    assert "AUTH_URL" in result.message
    assert simulator.token_requests == 1
    assert simulator.record == []
    assert result.rows == []


@pytest.mark.parametrize("fault", ["503", "server_error", "temporarily_unavailable", "reset"])
def test_a_token_endpoint_that_stays_down_ends_the_run_before_anything_is_expired(
    simulate: Simulate, run: Run, fault: str
) -> None:
    simulator = simulate(token_faults=[fault] * 9)
    result = run(simulator, MAX_ATTEMPTS="3")
    assert result.code == 69
    assert simulator.token_requests == 3
    assert result.summary["retries"] == 2
    assert simulator.record == []
    assert "Nothing was expired." in result.message


@pytest.mark.parametrize(
    ("faults", "code", "requests"),
    [
        (["ok", *["503"] * 9], 69, 4),
        (["ok", *["invalid_grant"] * 9], 69, 4),
        (["ok", *["invalid_client"] * 9], 69, 4),
        (["ok", *["401"] * 9], 69, 4),
        (["ok", "html"], 76, 2),
        (["ok", "invalid_grant", "invalid_client", "ok"], 0, 6),
    ],
)
def test_a_token_that_cannot_be_renewed_ends_the_run_with_the_rows_so_far(
    simulate: Simulate, run: Run, faults: list[str], code: int, requests: int
) -> None:
    simulator = simulate(exams=50, limit=10, token_calls=2, token_faults=faults)
    result = run(simulator, MAX_ATTEMPTS="3")
    assert result.code == code
    assert sorted(result.exam_ids) == sorted(delivered(simulator)) == sorted(expired(simulator))
    assert len(result.exam_ids) == (20 if code else 50)
    assert result.summary["lost"] == []
    assert simulator.token_requests == requests - (code == 0)
    if faults[1].startswith(("invalid", "401")) and code:
        assert "accepted earlier in this run" in result.message


@pytest.mark.parametrize(
    "token",
    [
        f"{SECRET}\r\nX-Evil: 1",
        "hunter2\n",
        "hunter2 hunter2",
        " hunter2",
        "hunter2\0",
        "hunter2é",
        "",
        None,
        7,
        ["hunter2"],
    ],
)
def test_a_token_that_no_header_can_carry_is_refused_unseen(simulate: Simulate, run: Run, token: object) -> None:
    simulator = simulate()
    with serving(responding(json_response({"access_token": token, "expires_in": 60}))) as server:
        result = run(simulator, AUTH_URL=server.url, LOG_LEVEL="DEBUG")
    assert result.code == 76
    assert "AUTH_URL" in result.message
    assert "hunter2" not in everything(result)
    assert simulator.record == []


@pytest.mark.parametrize("body", [b"", b"hunter2", b'["hunter2"]', b"[" * 100_000, b"\xff\xfe\x00", b"7" * 5000])
@pytest.mark.parametrize(("status", "code"), [(200, 76), (400, 77)])
def test_a_response_that_is_no_json_is_not_repeated(
    simulate: Simulate, run: Run, body: bytes, status: int, code: int
) -> None:
    with serving(responding(response(status, body))) as server:
        result = run(simulate(), AUTH_URL=server.url, LOG_LEVEL="DEBUG")
    assert result.code == code
    assert "hunter2" not in everything(result)
    assert "Traceback" not in everything(result)


@pytest.mark.parametrize(
    "description",
    [
        f"bad password {SECRET}",
        f"{SECRET}{SECRET}",
        f"{'x' * 190}{SECRET}",
        f"password={quote_plus(SECRET)}&",
        f"{SECRET}-and-more",
        f"bad password {SECRET.upper()}",
        f"bad password {SECRET[:8]}…",
        quote(SECRET),
        quote_plus(SECRET).lower(),
        escape(SECRET),
        "&#104;unter2-$&#38;%+",
        json.dumps(SECRET),
        b64encode(f"proctor-client:{quote_plus(SECRET)}".encode()).decode(),
    ],
)
def test_a_description_that_may_repeat_a_secret_is_hidden_but_the_error_is_shown(
    simulate: Simulate, run: Run, description: str
) -> None:
    content = {"error": "invalid_grant", "error_description": description}
    secrets = {"AUTH_CLIENT_SECRET": SECRET, "AUTH_PASSWORD": f"{SECRET}-and-more"}
    with serving(responding(json_response(content, 401))) as server:
        result = run(simulate(), AUTH_URL=server.url, LOG_LEVEL="DEBUG", **secrets)
    assert result.code == 77
    assert "401, invalid_grant, its description may repeat a secret and is not shown. Check" in result.message
    shown = everything(result).casefold()
    assert "hunter2" not in shown
    assert "-and-more" not in shown
    assert b64encode(b"proctor-client:").decode()[:-4].casefold() not in shown


@pytest.mark.parametrize("text", [[SECRET], {"password": SECRET}, SECRET])
def test_what_is_no_oauth_error_is_not_shown_where_it_repeats_a_secret(
    simulate: Simulate, run: Run, text: object
) -> None:
    content = {"error": text, "error_description": text, "message": text}
    with serving(responding(json_response(content, 400))) as server:
        result = run(simulate(), AUTH_URL=server.url, LOG_LEVEL="DEBUG", AUTH_PASSWORD=SECRET)
    assert result.code == 77
    assert "hunter2" not in everything(result)


@pytest.mark.parametrize("secret", ["a", "x", "?"])
def test_a_short_secret_does_not_hide_every_description(simulate: Simulate, run: Run, secret: str) -> None:
    content = {"error": "invalid_grant", "error_description": "The account is locked, not known?"}
    with serving(responding(json_response(content, 400))) as server:
        result = run(simulate(), AUTH_URL=server.url, AUTH_PASSWORD=secret, AUTH_CLIENT_SECRET=secret)
    assert "400, invalid_grant, The account is locked, not known" in result.message


@pytest.mark.parametrize("length", [1, 10_000])
def test_the_reason_that_the_endpoint_states_is_shown_but_not_at_any_length(
    simulate: Simulate, run: Run, length: int
) -> None:
    content = {"error": "invalid_grant", "error_description": "The account is locked. " * length}
    with serving(responding(json_response(content, 400))) as server:
        result = run(simulate(), AUTH_URL=server.url)
    assert "400, invalid_grant, The account is locked. " in result.message
    assert len(result.message) < 1000
