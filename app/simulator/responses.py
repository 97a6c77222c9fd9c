"""HTTP responses as Proctor's Tomcat sends them."""

import json
import struct
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

SIGN_IN = "https://sso.example.org/auth/SSORedirect/metaAlias/sbac/idp?SAMLRequest=fVHbTsMwDP2VKO9d"

_CHUNK = 8192  # bytes; the buffer of Tomcat's connector
_GZIP_CHUNK = 512  # bytes; the buffer of Java's deflater
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_GZIP_FROM = 2048  # bytes
PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1>{1}</body></html>"


class Response(NamedTuple):
    """A response; its payload is what follows the headers, with its framing."""

    status: int
    headers: dict[str, str]
    payload: bytes = b""
    reason: str = ""

    def head(self) -> bytes:
        """The status line and the headers, with the empty line that ends them."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{name}: {text}" for name, text in self.headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def encode(self) -> bytes:
        return self.head() + self.payload

    @property
    def closes(self) -> bool:
        """Whether it announces the end of the connection."""
        return self.headers.get("Connection") == "close"


def chunked(chunks: Iterator[bytes]) -> bytes:
    """HTTP chunks, and the last chunk."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def slices(data: bytes, size: int) -> Iterator[bytes]:
    """The data in slices of `size` bytes; the last one may be shorter."""
    return (data[start : start + size] for start in range(0, len(data), size))


def gzip_chunks(data: bytes) -> Iterator[bytes]:
    """The gzip stream in the chunks in which Tomcat sends it."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    yield _GZIP_HEADER
    yield from slices(deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH), _GZIP_CHUNK)
    yield deflate.flush() + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def from_proctor(
    status: int, headers: dict[str, str] | None = None, body: bytes = b"", cookie: bool = True, gzip: bool = False
) -> Response:
    """A response of Tomcat: no reason phrase; `gzip` is what the client accepts. After 400 and 500 it closes."""
    fields = {"Set-Cookie": f"JSESSIONID={uuid.uuid4().hex.upper()}; Path=/proctor; HttpOnly"} if cookie else {}
    fields |= headers or {}
    compressed = gzip and len(body) >= _GZIP_FROM and "json" in fields["Content-Type"]
    if body:
        fields["Transfer-Encoding"] = "chunked"
    else:
        fields["Content-Length"] = "0"
    if compressed:
        fields["Content-Encoding"] = "gzip"
    if "json" in fields.get("Content-Type", ""):
        fields["Vary"] = "Accept-Encoding"
    fields["Date"] = http_date()
    if status in (400, 500):
        fields["Connection"] = "close"
    fields["Server"] = " "
    chunks = gzip_chunks(body) if compressed else slices(body, _CHUNK)
    return Response(status, fields, chunked(chunks) if body else b"")


def expired_exams(body: bytes, gzip: bool) -> Response:
    """The response to an expire call."""
    return from_proctor(200, {"Content-Type": "application/json;charset=UTF-8"}, body, gzip=gzip)


def oauth_error(
    status: int, exception: str, error: str, description: str, *, accept: str, challenge: str = 'Bearer realm="oauth"'
) -> Response:
    """Proctor's rejection of a token: XML, or JSON for those who ask for that."""
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache", "WWW-Authenticate": challenge}
    if "application/json" in accept:
        headers["Content-Type"] = "application/json;charset=UTF-8"
        body = compact({"error": error, "error_description": description})
    else:
        headers["Content-Type"] = "application/xml;charset=UTF-8"
        body = (
            f"<{exception}><error>{error}</error><error_description>{escape(description)}</error_description>"
            f"</{exception}>"
        ).encode()
    return from_proctor(status, headers, body, cookie=False)


def invalid_token(token: str, accept: str) -> Response:
    """The 401 to a token that is unknown, or that Proctor cannot verify; it repeats the token."""
    challenge = f'Bearer realm="oauth", error="invalid_token", error_description="{token}"'
    return oauth_error(401, "InvalidTokenException", "invalid_token", token, accept=accept, challenge=challenge)


def token_expired(accept: str) -> Response:
    """The 400 to a token that was accepted before and has expired since."""
    description = "Access token has expired"
    return oauth_error(400, "InvalidGrantException", "invalid_grant", description, accept=accept)


def foreign_audience(accept: str) -> Response:
    """The 403 to a token that was issued for another audience."""
    description = "Invalid token does not contain resource id (tib)"
    return oauth_error(403, "OAuth2AccessDeniedException", "access_denied", description, accept=accept)


def sign_in_redirect() -> Response:
    """302 to the identity provider."""
    cache = {"Cache-control": "no-cache, no-store", "Pragma": "no-cache"}
    return from_proctor(302, {**cache, "Location": SIGN_IN})


def sign_in_form() -> Response:
    """200 with a page that posts to the identity provider."""
    body = f'<html><body><form method="post" action="{SIGN_IN}"><input name="SAMLRequest" value="fVJ"/></form></body>'
    return from_proctor(200, {"Content-Type": "text/html;charset=utf-8"}, f"{body}</html>".encode())


def tomcat_page(status: int, headers: dict[str, str] | None = None) -> Response:
    """Tomcat's error page; it has a length."""
    title = f"HTTP Status {status} \u2013 {HTTPStatus(status).phrase}"
    page = PAGE.format(title, "<h3>Apache Tomcat</h3>").encode()
    fields = {"Content-Type": "text/html;charset=utf-8", "Content-Language": "en", "Content-Length": str(len(page))}
    response = from_proctor(status, (headers or {}) | fields)
    return response._replace(headers=response.headers | fields, payload=page)


def compact(content: Any) -> bytes:
    """JSON without any spaces."""
    return json.dumps(content, separators=(",", ":")).encode()


def http_date() -> str:
    """The time as HTTP headers have it."""
    return format_datetime(datetime.now(UTC), usegmt=True)
