"""What an error of the libraries, or a response of a proxy or gateway, means for the operator.

Texts of library exceptions may repeat what was sent or received, so they are never shown: only their kind, the system's
own words for an error number, and OpenSSL's for a certificate.
"""

import http.client
import re
import ssl
from collections.abc import Iterator

import requests
import urllib3

from app.exceptions import Failure, Misconfigured, Transient
from app.proctor.connection import BrokenResponse
from app.proctor.response import Response

_PROXY_LOGIN = (
    "The proxy for {host} requires a login, or rejected the one it was given (407). Set it in HTTPS_PROXY or"
    " HTTP_PROXY, as http://user:password@proxy.example.org:3128, or bypass the proxy: list {host} in NO_PROXY."
)
_CLIENT_CERTIFICATE = (
    "{host} requires a client certificate, which this program does not present; nothing was processed. Use an address"
    " that does not require one."
)
_TLS_PORT = "{host} speaks TLS, but its URL begins with http. Write https, or another port, in PROCTOR_URL or AUTH_URL."

# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/: no certificate that leads to a trusted one was found.
_UNKNOWN_ISSUER = {2, 18, 19, 20, 21}
# The words of gateways for a plain request at their TLS port: nginx, Apache and Go's (Caddy, Traefik).
_PLAIN_AT_TLS = re.compile(rb"plain HTTP request was sent to HTTPS port|plain HTTP to an SSL|HTTP request to an HTTPS")
_NO_CERTIFICATE_SENT = re.compile(rb"No required SSL certificate was sent")
_TLS_RECORD = re.compile(r"[\x15\x16]\x03")  # how an alert or a handshake begins, where a status line should
_TUNNEL_FAILED = re.compile(r"Tunnel connection failed: (\d{3})\b")  # http.client's words
# OpenSSL's reasons for a handshake that would fail the same way again.
_PERMANENT = (
    "UNSUPPORTED_PROTOCOL",
    "NO_PROTOCOLS_AVAILABLE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "DH_KEY_TOO_SMALL",
    "EE_KEY_TOO_SMALL",
    "CA_KEY_TOO_SMALL",
    "CA_MD_TOO_WEAK",
    "WRONG_SIGNATURE_TYPE",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED",
)


def of_unsent(error: Exception, url: str) -> Exception | None:
    """What an error means before anything was sent; None for one that is a bug."""
    host = _host(url)
    if failure := _of_tls(error, host):
        return failure
    tunnel = _tunnel_status(error)
    if tunnel in ("401", "407"):  # tinyproxy says 401 of a wrong login, 407 of a missing one
        return Misconfigured(_PROXY_LOGIN.format(host=host))
    if isinstance(error, (ValueError, TypeError)):  # from deep within the libraries, for unusable hosts and proxies
        kind = type(error).__name__
        return Misconfigured(f"{host} cannot be called ({kind}). Check its URL, and HTTP_PROXY and HTTPS_PROXY.")
    if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError, OSError, BrokenResponse)):
        through = " through the proxy" if isinstance(error, (requests.exceptions.ProxyError, BrokenResponse)) else ""
        reason = f"the proxy refused the connection with {tunnel}" if tunnel else reason_of(error)
        return Transient(f"{host} cannot be reached{through}: {reason}")
    return None


def of_sent(error: Exception, url: str) -> Failure | None:
    """What an error means where a request was sent but surely not processed; None where that is not sure."""
    host = _host(url)
    for cause in _causes(error):
        # With TLS 1.3 a gateway's demand for a certificate is received after the request was sent.
        if isinstance(cause, ssl.SSLError) and cause.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
            return Misconfigured(_CLIENT_CERTIFICATE.format(host=host))
        if isinstance(cause, http.client.BadStatusLine) and _TLS_RECORD.search(str(getattr(cause, "line", ""))[:10]):
            return Misconfigured(_TLS_PORT.format(host=host))
    return None


def of_response(response: Response, url: str) -> Failure | None:
    """What is wrong where a proxy, or the TLS of a gateway, turned the request down; None for every other response."""
    host = _host(url)
    if response.status == 407:
        return Misconfigured(_PROXY_LOGIN.format(host=host))
    if response.status == 400 and url.startswith("http:") and _PLAIN_AT_TLS.search(response.body):
        return Misconfigured(_TLS_PORT.format(host=host))
    if response.status in (400, 496) and _NO_CERTIFICATE_SENT.search(response.body):
        return Misconfigured(_CLIENT_CERTIFICATE.format(host=host))
    return None


def reason_of(error: Exception) -> str:
    """The root cause in a few words."""
    for cause in reversed(list(_causes(error))):
        if isinstance(cause, BrokenResponse):
            return str(cause)
        if isinstance(cause, (http.client.IncompleteRead, urllib3.exceptions.IncompleteRead)):
            return "the response was cut short"
        if isinstance(cause, http.client.RemoteDisconnected):
            return "the connection was closed without a response"
        if isinstance(cause, ssl.SSLError):
            if cause.reason == "WRONG_VERSION_NUMBER":
                return "it does not speak TLS; should its URL begin with http, or is the port wrong?"
            return f"TLS failed ({cause.reason or type(cause).__name__})"
        if isinstance(cause, TimeoutError) and not cause.strerror:
            return "it timed out"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, http.client.HTTPException):
            return f"the response is not valid HTTP ({type(cause).__name__})"
    return f"the exchange failed ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it wraps; urllib3 keeps the cause of a proxy's error among the arguments alone."""
    found, seen = [error], set()
    while found:
        cause = found.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        nested = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        found += [one for one in nested if isinstance(one, BaseException)]


def _of_tls(error: Exception, host: str) -> Failure | None:
    """The failure of a handshake that would fail the same way again."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            advice = (
                " If it was issued by your own CA, set TLS_CA_FILE to that CA's certificate."
                if cause.verify_code in _UNKNOWN_ISSUER
                else " Fix the certificate on that host, or use the host name that it was issued for."
            )
            reason = cause.verify_message.rstrip(".")
            return Misconfigured(f"The TLS certificate of {host} is not trusted: {reason}.{advice}")
        if isinstance(cause, ssl.SSLError) and (cause.reason or "").startswith(_PERMANENT):
            return Misconfigured(
                f"{host} and this machine have no TLS version, cipher or key type in common ({cause.reason}), or {host}"
                " requires a client certificate, which this program does not present. Fix it on that host."
            )
    return None


def _tunnel_status(error: Exception) -> str | None:
    """The status with which a proxy refused a CONNECT."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and (refused := _TUNNEL_FAILED.match(str(cause))):
            return refused[1]
    return None


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
