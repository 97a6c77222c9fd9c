"""What an embedded Proctor holds and how it behaves. Every default is what was observed of the real one."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Scenario:
    """The state and the behaviour of one embedded Proctor. Faults may be changed while it serves."""

    exams: int = 250
    """Overdue exams."""
    not_due: int = 0
    """Started exams that are older than the overdue ones, but not due yet."""
    limit: int = 100
    """The exam service's `expireExamLimit`: how many exams one call looks at."""
    client_name: str = "SBAC_PT"
    """The one client name that is known."""
    seed: int = 1
    """Of exam ids, of the order within a response, and of random faults."""
    latency: float = 0.0
    """Seconds that a call takes."""
    late_seconds: float = 0.2
    """Seconds after the request at which a late fault responds."""

    compresses: bool = True
    """False: a deployment that compresses no response."""
    with_status: bool = True
    """False: a deployment from before December 2017, without `updatedExamStatus`."""
    empty_list: Literal["null", "list", "missing"] = "null"
    """What `expiredExams` is when a call changes nothing; older exam services send `[]`."""
    older_methods: bool = False
    """True: any method but POST gets 405 with `Allow: POST`, as from an older Proctor."""
    sign_in: Literal["redirect", "form"] = "redirect"
    """How a caller without a token is sent to the identity provider."""

    token_endpoint: Literal["openam", "keycloak"] = "openam"
    token_seconds: int = 3600
    """Lifetime of a token."""
    token_calls: int = 0
    """Requests to Proctor that a token is good for; 0: any number."""
    foreign_audience: bool = False
    """True: tokens are issued for an audience that Proctor does not accept."""
    scopes: str | None = None
    """The scopes that the token endpoint knows, separated by spaces; None: any."""
    credentials: dict[str, str] = field(
        default_factory=lambda: {
            "client_id": "proctor-client",
            "client_secret": "client-secret",
            "username": "prime.user@example.org",
            "password": "pass word$&%+\u00e9",
        }
    )

    faults: list[str] = field(default_factory=list)
    """One for each expire call, in this order; see `FAULTS_HELP`."""
    fault_rate: float = 0.0
    """The share of further calls that meet a random fault."""
    token_faults: list[str] = field(default_factory=list)
    """One for each token request, in this order; see `TOKEN_FAULTS_HELP`."""

    def __post_init__(self) -> None:
        self.faults, self.token_faults = list(self.faults), list(self.token_faults)
