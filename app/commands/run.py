"""The job, from beginning to end: output, token, calls, report, exit code."""

import logging
from contextlib import ExitStack, closing, suppress
from signal import Signals

from app import __version__
from app.exceptions import Ending, ExitCode, Failure, Outcome, OutputFailed, exit_code
from app.expire import expire_all
from app.heartbeat import ping
from app.logs import log, log_event
from app.output.csv_report import CsvReport
from app.output.summary import Summary
from app.output.volume import Volume
from app.proctor.endpoint import Endpoint
from app.proctor.tokens import Tokens
from app.proctor.transport import Transport, tls_verify
from app.settings import Settings
from app.signals import FIRST, SECOND, Interrupted, Stop


def run(settings: Settings, stop: Stop) -> int:
    """Expire all overdue exams and report them. Returns the exit code; raises nothing."""
    summary = Summary(settings.client_name, settings.proctor_url)
    stop.on_first = lambda signum: _announce(signum, settings)
    report = CsvReport(1, "stdout", stop)
    with ExitStack() as held:
        try:
            seconds_at_work = 0.0
            if settings.output_dir:
                volume = held.enter_context(closing(Volume(settings.output_dir, settings.read_timeout)))
                lost, seconds_at_work = volume.recover()
                summary.lost += lost
                report = volume.report(settings.client_name, stop)
            report.open()
            with suppress(Interrupted):  # noticed again before the first call
                ping(settings.heartbeat_url, "start", stop, verify=tls_verify(settings), ended_by=FIRST)
            _log_start(settings, report)
            _wait_for_earlier_call(seconds_at_work, stop)
            with closing(Transport.from_settings(settings, stop, log_waiting)) as transport:
                tokens = Tokens(settings, transport, stop.sleep, summary.count_retry)
                endpoint = Endpoint(settings, transport)
                ending = Ending(expire_all(settings, tokens, endpoint, report=report, summary=summary, stop=stop))
        except Interrupted:
            ending = Ending(Outcome.INTERRUPTED, signum=stop.signum or 0)
        except Failure as failure:
            ending = Ending(Outcome.FAILED, failure)
        except Exception as error:
            log.exception("This is a bug; please report it.")
            ending = Ending(Outcome.FAILED, Failure(f"A bug ended the run ({type(error).__name__})."))
        return _conclude(ending, settings, report, summary, stop)


def _conclude(ending: Ending, settings: Settings, report: CsvReport, summary: Summary, stop: Stop) -> int:
    """Close the CSV, keep the summary, report to the monitor, and only then give the CSV its final name."""

    def settle(ending: Ending) -> int:
        code = exit_code(ending, responses_lost=bool(summary.lost), fail_on_no_progress=settings.fail_on_no_progress)
        summary.end(ending, code)
        return code

    code = settle(ending)
    for finish in (report.close, lambda: report.save(summary.as_object())):
        try:
            finish()
        except OutputFailed as failure:
            log_event(logging.ERROR, "output_failed", str(failure))
            if code == ExitCode.OK:
                code = settle(Ending(Outcome.FAILED, failure))
    summary.log_end()
    _ping_end(settings, code, stop, summary)
    try:
        report.publish()
    except OutputFailed as failure:
        log_event(logging.ERROR, "output_failed", str(failure))
        if code == ExitCode.OK:
            code = settle(Ending(Outcome.FAILED, failure))
            _ping_end(settings, code, stop, summary)
    return code


def _ping_end(settings: Settings, code: int, stop: Stop, summary: Summary) -> None:
    with suppress(Interrupted):
        verify = tls_verify(settings)
        ping(settings.heartbeat_url, str(code), stop, summary.as_object(), verify=verify, ended_by=SECOND)


def _log_start(settings: Settings, report: CsvReport) -> None:
    log_event(
        logging.INFO,
        "start",
        f"Expiring overdue exams at {settings.expire_url}, CSV to {report.place}. Version {__version__}.",
        url=settings.expire_url,
        output=report.place,
        version=__version__,
    )


def _wait_for_earlier_call(seconds: float, stop: Stop) -> None:
    """Two calls that Proctor works on at the same time change the same exams twice."""
    if seconds > 0:
        log_event(
            logging.WARNING,
            "earlier_call",
            f"Proctor may still be at work on the last call of an earlier run: waiting {seconds:.0f} s for it to end.",
            seconds=round(seconds, 3),
        )
        stop.sleep(seconds)


def _announce(signum: int, settings: Settings) -> None:
    log_event(
        logging.WARNING,
        "signal",
        f"Received {Signals(signum).name}. The run ends when the response to the call under way, if any, is received"
        f" and its rows are written: it waits up to {settings.read_timeout:g} s. A second signal abandons that"
        " response.",
        signum=signum,
    )


def log_waiting(seconds: float) -> None:
    """Log that a long call is alive."""
    log_event(logging.INFO, "waiting", f"Still waiting for a response, {seconds:.0f} s so far.", seconds=round(seconds))
