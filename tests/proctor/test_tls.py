"""TLS: whom a run trusts, and what it says where no trust or no common protocol is found."""

import ssl
import warnings
from datetime import timedelta
from pathlib import Path

import pytest

from app.simulator import Simulator
from tests.certificates import Authority
from tests.proctor.outcomes import was_not_sent
from tests.promise import assert_complete
from tests.servers import TUNNEL, relaying, resetting, responding, response, serving
from tests.support import Result, Run, Simulate


def is_misconfigured(result: Result, *simulators: Simulator) -> bool:
    """Whether the run ended for its configuration, at once and with nothing lost."""
    stopped = (result.code, result.summary["lost"], result.events("retry")) == (78, [], [])
    return stopped and not any(simulator.record for simulator in simulators)


def test_a_certificate_of_your_own_authority_is_trusted_by_tls_ca_file(
    simulate: Simulate, run: Run, authority: Authority
) -> None:
    simulator = simulate(certificate=authority.certify("127.0.0.1"))
    assert_complete(simulator, run(simulator, TLS_CA_FILE=authority.file))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_where_nothing_is_set_the_variables_of_other_programs_count(
    simulate: Simulate, run: Run, authority: Authority, variable: str
) -> None:
    simulator = simulate(certificate=authority.certify("127.0.0.1"))
    assert_complete(simulator, run(simulator, **{variable: authority.file}))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("trust", ["TLS_VERIFY", "TLS_CA_FILE"])
def test_the_settings_of_trust_win_over_the_variables_of_other_programs(
    simulate: Simulate, run: Run, authority: Authority, variable: str, trust: str
) -> None:
    simulator = simulate(certificate=authority.certify("127.0.0.1"))
    setting = {trust: {"TLS_VERIFY": "false", "TLS_CA_FILE": authority.file}[trust]}
    assert_complete(simulator, run(simulator, **{variable: "/nonsense"}, **setting))


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
def test_a_certificate_of_an_unknown_authority_asks_for_tls_ca_file(
    simulate: Simulate, run: Run, authority: Authority, setting: str
) -> None:
    plain, tls = simulate(), simulate(certificate=authority.certify("127.0.0.1"))
    result = run(plain, **{setting: tls.settings()[setting]})
    assert is_misconfigured(result, plain, tls)
    assert "TLS_CA_FILE" in result.message
    assert f"127.0.0.1:{tls.port}" in result.message


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
@pytest.mark.parametrize(
    ("host", "valid", "words"), [("other.example.org", 1, "127.0.0.1"), ("127.0.0.1", -1, "certificate has expired")]
)
def test_a_wrong_host_name_or_an_expired_certificate_is_no_matter_of_the_authority(
    simulate: Simulate, run: Run, authority: Authority, setting: str, host: str, valid: int, words: str
) -> None:
    plain, tls = simulate(), simulate(certificate=authority.certify(host, timedelta(days=valid)))
    result = run(plain, TLS_CA_FILE=authority.file, **{setting: tls.settings()[setting]})
    assert is_misconfigured(result, plain, tls)
    assert words in result.message
    assert "TLS_CA_FILE" not in result.message
    assert f"127.0.0.1:{tls.port}" in result.message


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
def test_a_server_that_requires_a_client_certificate_is_a_matter_of_configuration(
    simulate: Simulate, run: Run, authority: Authority, setting: str, version: ssl.TLSVersion
) -> None:
    context = authority.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    simulator = simulate()
    with serving(responding(response(200)), tls=context) as server:
        url = server.url.replace("http", "https")
        result = run(simulator, TLS_CA_FILE=authority.file, **{setting: url})
    assert is_misconfigured(result, simulator)
    assert "client certificate" in result.message
    assert server.requests == []


def test_a_server_with_an_outdated_version_of_tls_is_a_matter_of_configuration(
    simulate: Simulate, run: Run, authority: Authority
) -> None:
    context = authority.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    simulator = simulate()
    with serving(responding(response(200)), tls=context) as server:
        result = run(simulator, TLS_CA_FILE=authority.file, PROCTOR_URL=server.url.replace("http", "https"))
    assert is_misconfigured(result, simulator)
    assert "no TLS version, cipher or key type in common" in result.message


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
@pytest.mark.parametrize(
    "refusal",
    [
        response(400, b"<center>The plain HTTP request was sent to HTTPS port</center>"),
        response(400, b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"),
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x15\x03\x03\x00\x02\x02\x0a",
    ],
    ids=["nginx", "apache", "go", "alert", "unexpected-message"],
)
def test_http_to_a_tls_port_says_so_on_the_first_request(
    simulate: Simulate, run: Run, setting: str, refusal: bytes
) -> None:
    simulator = simulate()
    with serving(responding(refusal)) as server:
        result = run(simulator, **{setting: server.url})
    assert is_misconfigured(result, simulator)
    assert f"127.0.0.1:{server.port} speaks TLS, but its URL begins with http" in result.message
    assert len(server.requests) == 1


def test_tls_to_a_port_without_it_is_not_sent(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    result = run(simulator, PROCTOR_URL=simulator.url.replace("http", "https"), MAX_ATTEMPTS="2")
    assert was_not_sent(simulator, result, attempts=2)
    assert "does not speak TLS" in result.message


def test_a_reset_in_the_tls_handshake_is_not_sent(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    with serving(resetting) as server:
        result = run(simulator, PROCTOR_URL=server.url.replace("http", "https"), MAX_ATTEMPTS="3")
    assert was_not_sent(simulator, result, attempts=3)
    assert len(server.connections) == 3


@pytest.mark.parametrize("variable", ["TLS_CA_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("path", ["/no/such.pem", "/dev/zero"])
def test_a_ca_bundle_that_cannot_be_read_is_named(simulate: Simulate, run: Run, variable: str, path: str) -> None:
    simulator = simulate()
    result = run(simulator, **{variable: path})
    assert result.code == 78
    assert any(variable in event["message"] and path in event["message"] for event in result.log)
    assert simulator.token_requests == 0


def remote(authority: Authority) -> dict[str, str]:
    """The settings that lead to a host that only a proxy knows."""
    return {
        "PROCTOR_URL": "https://proctor.invalid",
        "AUTH_URL": "https://proctor.invalid/auth/oauth2/access_token?realm=/sbac",
        "TLS_CA_FILE": authority.file,
    }


def test_a_proxy_tunnels_tls(simulate: Simulate, run: Run, authority: Authority) -> None:
    simulator = simulate(exams=450, certificate=authority.certify("proctor.invalid"))
    with serving(relaying(simulator.port, TUNNEL)) as server:
        assert_complete(simulator, run(simulator, **remote(authority), HTTPS_PROXY=server.url))
    assert server.connections


def test_a_certificate_that_is_not_trusted_is_named_through_a_proxy_too(
    simulate: Simulate, run: Run, authority: Authority, tmp_path: Path
) -> None:
    simulator = simulate(certificate=authority.certify("proctor.invalid"))
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    with serving(relaying(simulator.port, TUNNEL)) as server:
        result = run(simulator, **remote(other), HTTPS_PROXY=server.url)
    assert is_misconfigured(result, simulator)
    assert "TLS_CA_FILE" in result.message
