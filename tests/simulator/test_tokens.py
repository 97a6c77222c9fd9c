"""The token endpoint, as OpenAM and Keycloak were observed to be."""

import base64
from urllib.parse import quote_plus, urlencode

import pytest

from tests.embedded import EmbeddedProctor
from tests.simulator.client import FORM, ask_token, expire, left, send
from tests.support import Simulate

KINDS = ["openam", "keycloak"]
OPENAM = "/auth/oauth2/access_token"


@pytest.mark.parametrize("token_endpoint", KINDS)
@pytest.mark.parametrize("grant_type", ["password", "client_credentials"])
def test_a_token_is_issued_with_its_lifetime(simulate: Simulate, token_endpoint: str, grant_type: str) -> None:
    simulator = simulate(token_endpoint=token_endpoint, token_seconds=90)
    first, second = (ask_token(simulator, grant_type=grant_type).json() for _ in range(2))
    assert (first["token_type"], first["expires_in"]) == ("Bearer", 90)
    assert first["access_token"] != second["access_token"]
    assert simulator.token_requests == 2
    assert expire(simulator, Authorization=f"Bearer {first['access_token']}").status == 200


def test_a_lifetime_may_be_nothing(simulate: Simulate) -> None:
    assert ask_token(simulate(token_seconds=0)).json()["expires_in"] == 0


@pytest.mark.parametrize(
    ("change", "openam", "keycloak"),
    [
        ({"client_id": "other"}, (400, "invalid_client"), (401, "invalid_client")),
        ({"client_secret": "other"}, (400, "invalid_client"), (401, "unauthorized_client")),
        ({"client_secret": None}, (400, "invalid_client"), (401, "unauthorized_client")),
        ({"grant_type": "implicit"}, (400, "unsupported_grant_type"), (400, "unsupported_grant_type")),
        ({"grant_type": None}, (400, "unsupported_grant_type"), (400, "unsupported_grant_type")),
        ({"username": "other"}, (400, "invalid_grant"), (401, "invalid_grant")),
        ({"password": "other"}, (400, "invalid_grant"), (401, "invalid_grant")),
        ({"scope": "cn none"}, (400, "invalid_scope"), (400, "invalid_scope")),
    ],
)
@pytest.mark.parametrize("token_endpoint", KINDS)
def test_a_wrong_request_gets_the_oauth_error_of_that_server(
    simulate: Simulate,
    change: dict[str, str | None],
    openam: tuple[int, str],
    keycloak: tuple[int, str],
    token_endpoint: str,
) -> None:
    response = ask_token(simulate(token_endpoint=token_endpoint, scopes="cn mail"), **change)
    assert (response.status, response.json()["error"]) == {"openam": openam, "keycloak": keycloak}[token_endpoint]
    assert response.headers.get_content_type() == "application/json"
    assert response.json().keys() == {"error", "error_description"}


@pytest.mark.parametrize("scopes", [None, "cn mail"])
def test_a_known_scope_is_granted(simulate: Simulate, scopes: str | None) -> None:
    assert ask_token(simulate(scopes=scopes), scope="mail cn").json()["scope"] == "mail cn"


@pytest.mark.parametrize(
    ("token_endpoint", "path"),
    [
        ("openam", OPENAM),
        ("openam", OPENAM + "?realm=/other"),
        ("keycloak", "/realms/other/protocol/openid-connect/token"),
    ],
)
def test_an_unknown_realm_gets_404_with_json(simulate: Simulate, token_endpoint: str, path: str) -> None:
    response = ask_token(simulate(token_endpoint=token_endpoint), path)
    assert (response.status, response.headers.get_content_type()) == (404, "application/json")
    assert response.json()["error"]


def test_a_realm_is_known_without_its_slash(simulate: Simulate) -> None:
    assert ask_token(simulate(), OPENAM + "?realm=sbac").status == 200


@pytest.mark.parametrize(("method", "content_type"), [("GET", FORM["Content_Type"]), ("POST", "application/json")])
def test_only_a_posted_form_is_accepted(simulate: Simulate, method: str, content_type: str) -> None:
    simulator = simulate()
    form = urlencode({"grant_type": "password", **simulator.scenario.credentials})
    response = send(simulator, method, OPENAM + "?realm=/sbac", form, Content_Type=content_type)
    assert (response.status, response.json()["error"]) == (400, "invalid_request")


def with_basic(simulator: EmbeddedProctor, name: str, secret: str) -> int:
    """The status of a token request whose client uses HTTP Basic."""
    authorization = f"Basic {base64.b64encode(f'{name}:{secret}'.encode()).decode()}"
    path = simulator.settings()["AUTH_URL"].removeprefix(simulator.url)
    return send(simulator, "POST", path, "grant_type=client_credentials", Authorization=authorization, **FORM).status


@pytest.mark.parametrize(("token_endpoint", "raw", "encoded"), [("openam", 200, 400), ("keycloak", 401, 200)])
def test_openam_takes_http_basic_raw_and_keycloak_decodes_it(
    simulate: Simulate, token_endpoint: str, raw: int, encoded: int
) -> None:
    credentials = {"client_id": "client", "client_secret": "100%25 +é"}
    simulator = simulate(token_endpoint=token_endpoint, credentials={**credentials, "username": "u", "password": "p"})
    assert with_basic(simulator, *credentials.values()) == raw
    assert with_basic(simulator, *map(quote_plus, credentials.values())) == encoded


@pytest.mark.parametrize(
    ("fault", "status"), [("503", 503), ("429:7", 429), ("302", 302), ("redirect", 302), ("html", 200), ("401", 401)]
)
def test_a_request_may_get_a_page(simulate: Simulate, fault: str, status: int) -> None:
    simulator = simulate(exams=1, token_faults=[fault])
    response = ask_token(simulator)
    assert (response.status, response.is_page()) == (status, True)
    assert response.headers["Retry-After"] == ("7" if fault == "429:7" else None)
    assert (status == 302) == ("Location" in response.headers)
    assert simulator.token_requests == 1
    assert left(simulator) == [0]


@pytest.mark.parametrize(
    "error",
    "server_error temporarily_unavailable invalid_grant invalid_client invalid_scope unauthorized_client".split(),
)
def test_right_credentials_may_get_an_oauth_error(simulate: Simulate, error: str) -> None:
    simulator = simulate(token_faults=[error])
    response = ask_token(simulator)
    assert (response.status, response.json()["error"]) == (400, error)
    assert ask_token(simulator).status == 200


@pytest.mark.parametrize(("fault", "status"), [("unknown-realm", 404), ("no-token", 200)])
def test_a_request_may_get_json_without_a_token(simulate: Simulate, fault: str, status: int) -> None:
    response = ask_token(simulate(token_faults=[fault]))
    assert response.status == status
    assert "access_token" not in response.json()


def test_the_connection_of_a_request_may_be_reset(simulate: Simulate) -> None:
    simulator = simulate(token_faults=["reset"])
    with pytest.raises(ConnectionResetError):
        ask_token(simulator)
    assert simulator.token_requests == 1
