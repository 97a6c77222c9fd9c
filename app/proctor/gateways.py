"""What an error response shows about the proxies and gateways that it came through.

Whether they had passed the call on to Proctor decides whether exams may have been changed. Facts as observed with
nginx, haproxy, Apache, Envoy, Varnish, Caddy, squid and tinyproxy.
"""

import re

from app.proctor.response import Response

# The marks of a gateway that had passed the call on, or may have: Varnish says 503 whatever happened after.
_PASSED_ON = re.compile(
    rb"disconnect/reset before headers|reset reason:|connection termination|Guru Meditation|Varnish"
    rb"|Could not retrieve all the headers",
    re.IGNORECASE,
)
# What Envoy says of a call that it had not passed on. Any other reason came after that; "retried and the latest reset
# reason" says nothing of the attempts before.
_ENVOY_NOT_PASSED_ON = re.compile(
    rb"before headers\. reset reason: *(remote connection failure|local connection failure|overflow)"
)
_TINYPROXY_NOT_PASSED_ON = re.compile(rb"Unable to connect")


def was_rejected(response: Response) -> bool:
    """Whether a response shows that the call was rejected before Proctor worked on it."""
    if response.status in (429, 503):
        return not _may_have_been_passed_on(response)
    return response.status == 500 and _is_of_tinyproxy(response)


def _may_have_been_passed_on(response: Response) -> bool:
    if "X-Varnish" in response.headers or "varnish" in response.header("Via").lower():
        return True
    return bool(_PASSED_ON.search(response.body)) and not _ENVOY_NOT_PASSED_ON.search(response.body)


def _is_of_tinyproxy(response: Response) -> bool:
    """Whether tinyproxy says with its 500 that it could not connect to Proctor."""
    return "tinyproxy" in response.header("Server").lower() and bool(_TINYPROXY_NOT_PASSED_ON.search(response.body))
