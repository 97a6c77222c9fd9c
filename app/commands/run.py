"""A run from beginning to end: output, token, calls, report, exit code."""

import logging
from contextlib import closing, suppress

from app import __version__
from app.proctor.tokens import Tokens
from app.exceptions import Ending, ExitCode, Failure, Outcome, OutputFailed, exit_code
from app.expire import expire_all
from app.heartbeat import beat
from app.logs import event, log
from app.proctor.endpoint import Proctor, Window
from app.output.csv_report import Report
from app.settings import Settings
from app.signals import Interrupted, Stop
from app.output.summary import Summary
from app.proctor.transport import Transport, verify_of
from app.output.volume import VolumeReport


def run(settings: Settings, stop: Stop) -> int:
    """Expire all overdue exams and report them. Returns the exit code; raises nothing."""
    summary = Summary(settings.client_name, settings.proctor_url)
    stop.on_first = lambda signum: _announce(signum, settings)
    report: Report | None = None
    verify = verify_of(settings)

    def end(ending: Ending) -> int:
        code = exit_code(ending, answers_lost=bool(summary.lost), fail_on_no_progress=settings.fail_on_no_progress)
        summary.end(ending, code)
        return code

    try:
        report = open_report(settings, stop, summary.lost)
        with stop.interruptible(after=1):
            beat(settings.heartbeat_url, "start", stop, verify=verify)
        event(
            logging.INFO,
            "start",
            f"Expiring overdue exams at {settings.expire_url}, CSV to {report.place}. Version {__version__}.",
            url=settings.expire_url,
            output=report.place,
            version=__version__,
        )
        with closing(Transport.of(settings, stop, still_waiting)) as transport:
            tokens = Tokens(settings, transport, stop.wait, summary.count_retry)
            proctor = Proctor(settings, transport)
            ending = Ending(expire_all(settings, tokens, proctor, report=report, summary=summary, stop=stop))
    except Interrupted:
        ending = Ending(Outcome.INTERRUPTED, signum=stop.signum or 0)
    except Failure as failure:
        ending = Ending(Outcome.FAILED, failure)
    except Exception as error:
        log.exception("This is a bug; please report it.")
        ending = Ending(Outcome.FAILED, Failure(f"A bug ended the run ({type(error).__name__})."))

    code = end(ending)
    if report:
        try:
            report.finish(summary.as_object())
        except OutputFailed as failure:
            event(logging.ERROR, "output_failed", str(failure))
            if code == ExitCode.OK:
                code = end(Ending(Outcome.FAILED, failure))
    summary.log_end()
    with suppress(Interrupted), stop.interruptible(after=2):
        beat(settings.heartbeat_url, str(code), stop, summary.as_object(), verify)
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


def open_report(settings: Settings, stop: Stop, lost: list[Window]) -> Report:
    """The report that the settings ask for, its header written; what killed runs on its volume lost is added to `lost`.

    Raises:
        OutputFailed: it cannot be written.
        Busy: another run holds the volume.
        Interrupted: a signal came.
    """
    if settings.output_dir:
        return VolumeReport(settings.output_dir, settings, stop, lost)
    return Report(1, "stdout", stop)
