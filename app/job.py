"""A run from beginning to end: output, token, calls, report, exit code."""

import logging
from contextlib import closing, suppress

from app import __version__
from app.auth import Tokens
from app.exits import ExitCode, Failure, Outcome, OutputFailed
from app.expire import expire_all
from app.heartbeat import beat
from app.logs import event, log
from app.proctor import Proctor
from app.report import Report
from app.settings import Settings
from app.signals import Interrupted, Stop
from app.summary import Summary
from app.transport import Transport, verify_of
from app.volume import VolumeReport


def run(settings: Settings, stop: Stop) -> int:
    """Expire all overdue exams and report them. Returns the exit code; raises nothing."""
    summary = Summary(settings.client_name, settings.proctor_url)
    stop.on_first = lambda signum: _announce(signum, settings)
    report: Report | None = None
    failure: Failure | None = None
    verify = verify_of(settings)
    try:
        report = open_report(settings, stop)
        with stop.interruptible(after=1):
            beat(settings.heartbeat_url, "start", verify=verify)
        summary.lost += report.inherited
        event(
            logging.INFO,
            "start",
            f"Expiring overdue exams at {settings.expire_url}, CSV to {report.place}. Version {__version__}.",
            url=settings.expire_url,
            output=report.place,
            version=__version__,
        )
        with closing(Transport.of(settings, still_waiting)) as transport:
            tokens = Tokens(settings, transport, stop.wait)
            proctor = Proctor(settings, transport)
            outcome = expire_all(settings, tokens, proctor, report=report, summary=summary, stop=stop)
    except Interrupted:
        outcome = Outcome.INTERRUPTED
    except Failure as error:
        outcome, failure = Outcome.FAILED, error
    except Exception as error:
        log.exception("This is a bug; please report it.")
        outcome, failure = Outcome.FAILED, Failure(f"A bug ended the run ({type(error).__name__}).")

    def end() -> int:
        return summary.end(
            outcome, failure=failure, signum=stop.signum, fail_on_no_progress=settings.fail_on_no_progress
        )

    code = end()
    if report:
        try:
            report.finish(summary.as_object())
        except OutputFailed as error:
            event(logging.ERROR, "output_failed", str(error))
            if code == ExitCode.OK:
                outcome, failure = Outcome.FAILED, error
                code = end()
    summary.log_end()
    with suppress(Interrupted), stop.interruptible(after=2):
        beat(settings.heartbeat_url, str(code), summary.as_object(), verify)
    return code


def _announce(signum: int, settings: Settings) -> None:
    event(
        logging.WARNING,
        "signal",
        f"Signal {signum} came. The run ends when the call under way, if any, is answered and its rows are written: it"
        f" waits up to {settings.read_timeout:g} s. A second signal gives that answer up as lost.",
        signum=signum,
    )


def still_waiting(seconds: float) -> None:
    """Say that a long call is alive."""
    event(logging.INFO, "waiting", f"Still waiting for an answer, {seconds:.0f} s so far.", seconds=round(seconds))


def open_report(settings: Settings, stop: Stop) -> Report:
    """The report that the settings ask for, its header written.

    Raises:
        OutputFailed: it cannot be written.
        Busy: another run holds the volume.
        Interrupted: a signal came.
    """
    if settings.output_dir:
        return VolumeReport(settings.output_dir, settings, stop)
    return Report(1, "stdout", stop)
