"""What the campaign draws from: scenarios of the embedded Proctor, signals, and settings that lead nowhere."""

import random
import signal
from functools import cache
from pathlib import Path

import trustme

from app.simulator import LATE_FAULTS, RANDOM_FAULTS, Scenario

READ_TIMEOUT = 0.5  # seconds
LATE_SECONDS = 0.2  # when late faults respond: much later than a rejection, much sooner than the timeout

RARE_FAULTS = (
    *LATE_FAULTS,
    *(
        "silence-before silence-after drip huge not-utf8 malformed-records sign-in 103-after 302 401-basic 403 404"
        " 405 407 408-after 418 429:1 502 502-late 503:date 503-slow 504 504-half 504-late 524-after cut-lines"
        " foreign-audience maintenance-200 null-list empty-list no-list plain-http"
    ).split(),
)

# The faults after which a client cannot know that no exam was changed. A window is no false alarm that could be
# avoided where the work of such a call had nothing to do, or was not done.
UNKNOWABLE_FAULTS = frozenset(
    (
        "500 502 504"  # Proctor's own, or a gateway's for a Proctor that was reset or too slow
        " 500-after 500-half 502-after 502-late 504-after 504-half 504-late 524-after 408-after"
        " 503-slow 503-late 503-late:0 429-late"  # what comes late may be for a call that took too long
        " maintenance-200 maintenance-429 maintenance-500 maintenance-503"
        " varnish-before varnish-after envoy-after"  # Varnish uses the same words for both
        " reset-before reset-after silence-before silence-after drip huge html not-json 103-after"
        " cut-status cut-lines cut-head cut-blank cut-body cut-chunk cut-length cut-gzip"
    ).split()
)

TOKEN_FAULTS = {
    "ok": 12,
    **dict.fromkeys(("503", "429:0", "reset", "server_error", "temporarily_unavailable", "500", "503:date"), 2),
    **dict.fromkeys(
        ("html", "no-token", "401", "silence", "invalid_grant", "invalid_client", "unknown-realm", "redirect", "403"), 1
    ),
}
"""And how often each is drawn."""

# The faults that may end a run with an exit code, of calls and of token requests.
CAUSES = {
    69: {*RANDOM_FAULTS, *RARE_FAULTS, *TOKEN_FAULTS},
    76: {"html", "no-token", "418", "408-after", "429:1", "103-after", "plain-http"},
    77: set("401 token-expired sign-in 302 401-basic 403 foreign-audience invalid_grant invalid_client".split()),
    78: set("404 405 407 plain-http unknown-realm redirect".split()),
}

SIGNALS: tuple[tuple[int, ...], ...] = (
    (signal.SIGKILL,),
    (signal.SIGTERM,),
    (signal.SIGINT,),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGKILL),
)

WRONG_SETTINGS: dict[str, tuple[str, set[int]]] = {  # and the exit codes that they may end with
    "HTTP_PROXY": ("http://127.0.0.1:1", {69}),
    "PROCTOR_URL": ("http://proctor.invalid", {69}),
    "AUTH_URL": ("http://127.0.0.1:1/token", {69}),
    "AUTH_CLIENT_SECRET": ("wrong", {77}),
    "CLIENT_NAME": ("NOBODY", {65, 77}),  # 77 if Proctor also rejects the token twice
    "MAX_ATTEMPTS": ("many", {78}),
    "TLS_CA_FILE": ("", {78}),  # that of another authority, where there is TLS
}


def draw(chance: random.Random, seed: int) -> Scenario:
    """A scenario, of a Proctor and a token endpoint of any generation."""
    exams = chance.choice((0, chance.randrange(50), chance.randrange(400), chance.randrange(400)))
    limit = chance.choice((1 + chance.randrange(9), 10, 50, 100))
    slow = exams / limit < 5 and chance.random() < 0.4
    return Scenario(
        exams=exams,
        limit=limit,
        not_due=chance.choice((0, 0, chance.randrange(30), chance.randrange(120))),
        seed=seed,
        latency=0.25 if slow else chance.choice((0, 0, 0.002, 0.02)),
        late_seconds=LATE_SECONDS,
        token_calls=chance.choice((0, 0, 1, 3)),
        token_seconds=chance.choice((3600, 3600, 1)),
        token_endpoint=chance.choice(("openam", "openam", "keycloak")),
        with_status=chance.random() > 0.1,
        empty_list=chance.choice(("null", "null", "list", "missing")),
        older_methods=chance.random() < 0.1,
        sign_in=chance.choice(("redirect", "form")),
        credentials={
            "client_id": "proctor-client",
            "client_secret": f"secret of a client {seed:x}",
            "username": "prime.user@example.org",
            "password": f"pass word$&%+\u00e9 {seed:x}",
        },
        faults=chance.choices(("ok", *RARE_FAULTS), k=8) if chance.random() < 0.3 else [],
        fault_rate=chance.choice((0, 0.2, 0.4, 0.8)),
        token_faults=chance.choices([*TOKEN_FAULTS], [*TOKEN_FAULTS.values()], k=3) if chance.random() < 0.6 else [],
    )


@cache
def authority(_name: str) -> trustme.CA:
    return trustme.CA()


def trusted(directory: Path, name: str) -> str:
    """A PEM file with the certificate of an authority."""
    return _pem_file(directory / f"{name}.pem", authority(name).cert_pem)


def certificate(directory: Path) -> tuple[str, str]:
    """The PEM files, certificate and key, of a server that `ours` vouches for."""
    issued = authority("ours").issue_cert("127.0.0.1")
    return (
        _pem_file(directory / "server.pem", issued.cert_chain_pems[0]),
        _pem_file(directory / "key.pem", issued.private_key_pem),
    )


def _pem_file(path: Path, pem: trustme.Blob) -> str:
    path.write_bytes(pem.bytes())
    return str(path)
