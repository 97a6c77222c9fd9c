"""HTTP responses of gateways and of other servers than Proctor: with a reason phrase and a length."""

from http import HTTPStatus

from app.simulator.responses import PAGE, Response, http_date

CONNECTION_TERMINATION = "connection termination"
CONNECTION_FAILURE = "remote connection failure, transport failure reason: delayed connect error: Connection refused"
OVERFLOW = "overflow"
"""Why Envoy has no response; the first comes from a Proctor that may have worked, the others come before any work."""


def plain(status: int, headers: dict[str, str], body: bytes, reason: str | None = None) -> Response:
    """A response with that body, and with the usual reason phrase unless another is given."""
    usual = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
    fields = {"Date": http_date(), **headers, "Content-Length": str(len(body))}
    return Response(status, fields, body, usual if reason is None else reason)


def page(status: int, headers: dict[str, str] | None = None, text: str = "") -> Response:
    """An HTML page, as gateways have one for each status."""
    body = PAGE.format(status, text).encode()
    return plain(status, {"Server": "nginx", "Content-Type": "text/html", **(headers or {})}, body)


def status_headers(status: int, retry_after: str | None) -> dict[str, str]:
    """What usually comes with a status, and Retry-After: seconds, or `date` for now."""
    headers = {}
    if 300 <= status < 400:
        headers["Location"] = "https://sso.example.org/login?SAMLRequest=fVJ"
    if status == 407:
        headers["Proxy-Authenticate"] = 'Basic realm="proxy"'
    if retry_after:
        headers["Retry-After"] = http_date() if retry_after == "date" else retry_after
    return headers


def varnish() -> Response:
    """Varnish's 503, the same for a backend that is down, too slow, or gone after the work."""
    body = b"<!DOCTYPE html><html><body><h1>Error 503</h1><h3>Guru Meditation:</h3><p>XID: 32771</p></body></html>"
    headers = {"Server": "Varnish", "Content-Type": "text/html; charset=utf-8", "Retry-After": "5"}
    marks = {"X-Varnish": "32770", "Age": "0", "Via": "1.1 varnish (Varnish/7.1)"}
    return plain(503, headers | marks, body, "Backend fetch failed")


def envoy(reset_reason: str) -> Response:
    """Envoy's 503, which gives the reason in its body."""
    text = f"upstream connect error or disconnect/reset before headers. reset reason: {reset_reason}"
    headers = {"x-envoy-overloaded": "true"} if reset_reason == OVERFLOW else {}
    return plain(503, {**headers, "content-type": "text/plain", "server": "envoy"}, text.encode())
