"""`python -m app.simulator`: the embedded Proctor as a process of its own, until it is stopped."""

import argparse
import sys
import threading

from app.simulator import FAULTS_HELP, TOKEN_FAULTS_HELP, Scenario, Simulator

_FIELDS = (
    "exams not_due limit client_name latency late_seconds empty_list older_methods sign_in token_endpoint token_seconds"
    " token_calls foreign_audience scopes faults fault_rate token_faults seed"
).split()


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _parser() -> argparse.ArgumentParser:
    scenario = Scenario()
    parser = argparse.ArgumentParser(
        prog="python -m app.simulator",
        description="An embedded Proctor with its token endpoint, for tests. Prints the settings that lead a run to it,"
        " and serves until it is stopped.",
        epilog=f"{FAULTS_HELP}\n{TOKEN_FAULTS_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to bind (default: loopback)")
    add("--port", type=int, default=8080, help="port to bind, 0 for any (default: %(default)s)")
    add("--exams", type=int, default=scenario.exams, help="overdue exams (default: %(default)s)")
    add("--not-due", type=int, default=0, help="started exams that are older, but not due (default: %(default)s)")
    add("--limit", type=int, default=scenario.limit, help="expireExamLimit, exams per call (default: %(default)s)")
    add("--client-name", default=scenario.client_name, help="the one client name known (default: %(default)s)")
    add("--latency", type=float, default=0.0, help="seconds that a call takes (default: 0)")
    add(
        "--late-seconds",
        type=float,
        default=scenario.late_seconds,
        help="seconds before late faults respond (%(default)s)",
    )
    add("--uncompressed", action="store_true", help="never compress a response")
    add("--without-status", action="store_true", help="as before December 2017: no updatedExamStatus")
    add(
        "--empty-list",
        choices=("null", "list", "missing"),
        default="null",
        help="expiredExams if there are none (%(default)s)",
    )
    add("--older-methods", action="store_true", help="405 with Allow: POST for any other method")
    add("--sign-in", choices=("redirect", "form"), default="redirect", help="response without a token (%(default)s)")
    add("--token-endpoint", choices=("openam", "keycloak"), default="openam", help="its kind (default: %(default)s)")
    add("--token-seconds", type=int, default=scenario.token_seconds, help="lifetime of a token (default: %(default)s)")
    add("--token-calls", type=int, default=0, help="requests that a token is valid for (default: unlimited)")
    add("--foreign-audience", action="store_true", help="tokens are for an audience that Proctor rejects")
    add("--scopes", help="the scopes known, separated by spaces (default: any)")
    add("--faults", type=_words, default=[], metavar="FAULT,…", help="one per expire call, in this order")
    add("--fault-rate", type=float, default=0.0, help="share of further calls with a fault at random (default: 0)")
    add("--token-faults", type=_words, default=[], metavar="FAULT,…", help="one per token request, in this order")
    add("--seed", type=int, default=1, help="seed of exam ids and random faults (default: %(default)s)")
    add("--record", metavar="FILE", help="append a JSON line for each expire call")
    add("--certificate", metavar="FILE", help="serve https with this certificate (PEM)")
    add("--key", metavar="FILE", help="the key of the certificate (PEM)")
    return parser


def _main() -> None:
    parser = _parser()
    options = parser.parse_args()
    scenario = Scenario(
        **{name: getattr(options, name) for name in _FIELDS},
        compresses=not options.uncompressed,
        with_status=not options.without_status,
    )
    certificate = (options.certificate, options.key) if options.certificate else None
    try:
        simulator = Simulator(scenario, options.host, options.port, certificate, options.record)
    except ValueError as error:
        parser.error(str(error))
    with simulator:
        print(f"Proctor listens on {simulator.url}", file=sys.stderr, flush=True)
        for name, value in simulator.settings().items():
            print(f"{name}={value}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    _main()
