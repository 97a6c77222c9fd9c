"""A gateway that requires something else of the job: nothing reached Proctor, and the message says what to change."""

import pytest

from app.simulator import Simulator
from tests.gateways.configurations import USER
from tests.gateways.conftest import Authority, Gateways
from tests.support import Result, Run, Simulate


def assert_stopped(result: Result, code: int, *simulators: Simulator) -> None:
    """A run ended with this code, reported no loss, and had Proctor process nothing."""
    assert (result.code, result.summary["lost"]) == (code, []), result.stderr.decode()
    assert not any(simulator.record for simulator in simulators)


@pytest.mark.parametrize("name", ["nginx", "haproxy", "stunnel"])
def test_a_gateway_requires_a_client_certificate(
    gateways: Gateways, simulate: Simulate, run: Run, authority: Authority, name: str
) -> None:
    """The alert arrives while the request is written or later, at random: hence several runs."""
    simulator = simulate()
    gateway = gateways.start(name, simulator.port, tls=authority.certificate, client_certificate=True)
    for _ in range(5):
        result = run(simulator, TLS_CA_FILE=authority.file, **gateway.settings())
        assert_stopped(result, 78, simulator)
        assert "client certificate" in result.message
        assert str(gateway.port) in result.message


def test_http_is_sent_to_a_tls_port(gateways: Gateways, simulate: Simulate, run: Run, authority: Authority) -> None:
    simulator = simulate()
    gateway = gateways.start("nginx", simulator.port, tls=authority.certificate)
    result = run(simulator, PROCTOR_URL=f"http://127.0.0.1:{gateway.port}")
    assert_stopped(result, 78, simulator)
    assert "PROCTOR_URL" in result.message
    assert "https" in result.message


def test_a_gateway_requires_its_own_login(gateways: Gateways, simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    login = 'auth_basic "Staff only"; auth_basic_user_file users;'
    gateway = gateways.start("nginx", simulator.port, location=login)
    result = run(simulator, **gateway.settings())
    assert_stopped(result, 77, simulator)
    assert "gateway" in result.message


@pytest.mark.parametrize("title", ["403 Forbidden", "Blocked by the firewall"])
def test_a_gateway_denies_access(gateways: Gateways, simulate: Simulate, run: Run, title: str) -> None:
    simulator = simulate()
    page = f"""
error_page 403 @denied;
location @denied {{ default_type text/html; return 403 "<html><head><title>{title}</title></head></html>"; }}
"""
    gateway = gateways.start("nginx", simulator.port, location="deny all;", server=page)
    result = run(simulator, **gateway.settings())
    assert_stopped(result, 77, simulator)
    assert "gateway" in result.message
    assert title in result.message


@pytest.mark.parametrize(("name", "login"), [("squid", f"{USER}:wrong-pass@"), ("tinyproxy", "")])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("setting", ["AUTH_URL", "PROCTOR_URL"])
def test_a_proxy_requires_a_login(
    gateways: Gateways,
    simulate: Simulate,
    run: Run,
    authority: Authority,
    name: str,
    login: str,
    scheme: str,
    setting: str,
) -> None:
    plain, tls = simulate(), simulate(certificate=authority.certificate[:2])
    proxied, direct = (plain, tls) if scheme == "http" else (tls, plain)
    gateway = gateways.start(name, proxied.port, login=True)
    settings = {
        setting: proxied.settings()[setting],
        "TLS_CA_FILE": authority.file,
        f"{scheme.upper()}_PROXY": f"http://{login}127.0.0.1:{gateway.port}",
    }
    result = run(direct, **settings)
    assert_stopped(result, 78, plain, tls)
    assert f"{scheme.upper()}_PROXY" in result.message
    assert b"wrong-pass" not in result.stderr


@pytest.mark.parametrize(("scheme", "code", "word"), [("http", 77, "gateway"), ("https", 78, "HTTPS_PROXY")])
def test_a_proxy_rejects_a_login_with_401(
    gateways: Gateways, simulate: Simulate, run: Run, authority: Authority, scheme: str, code: int, word: str
) -> None:
    """As tinyproxy does where the login is wrong: by http it looks like a gateway's in front of Proctor."""
    plain, tls = simulate(), simulate(certificate=authority.certificate[:2])
    proxied, direct = (plain, tls) if scheme == "http" else (tls, plain)
    gateway = gateways.start("tinyproxy", proxied.port, login=True)
    proxy = {f"{scheme.upper()}_PROXY": f"http://{USER}:wrong-pass@127.0.0.1:{gateway.port}"}
    result = run(direct, PROCTOR_URL=proxied.url, TLS_CA_FILE=authority.file, **proxy)
    assert_stopped(result, code, plain, tls)
    assert word in result.message
    assert b"wrong-pass" not in result.stderr


@pytest.mark.parametrize("name", ["squid", "tinyproxy"])
def test_a_certificate_is_not_trusted_through_a_tunnel(
    gateways: Gateways, simulate: Simulate, run: Run, authority: Authority, name: str
) -> None:
    plain, tls = simulate(), simulate(certificate=authority.certificate[:2])
    gateway = gateways.start(name, tls.port)
    result = run(plain, PROCTOR_URL=tls.url, HTTPS_PROXY=gateway.url)
    assert_stopped(result, 78, plain, tls)
    assert "TLS_CA_FILE" in result.message
