"""The job, from beginning to end: output, token, calls, report, exit code."""

import logging
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from signal import Signals

from app import __version__
from app.exceptions import Ending, Failure, Outcome, OutputFailed
from app.expire import expire_all
from app.heartbeat import Monitor
from app.logs import log, log_event
from app.output.csv_report import CsvReport
from app.output.past_runs import PastRun, unresolved_windows
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
    monitor = Monitor(settings.heartbeat_url, tls_verify(settings.tls_verify, settings.tls_ca_file))
    report = CsvReport(1, "stdout", stop)
    seconds_at_work = 0.0
    with ExitStack() as held:
        try:
            if settings.output_dir:
                longest_call = settings.connect_timeout + settings.read_timeout
                volume = held.enter_context(closing(Volume(settings.output_dir, longest_call, stop.sleep)))
                summary.unresolved_before = _warn_of_unresolved(*volume.past_runs(), settings.output_dir)
                lost, seconds_at_work = volume.clean_up()
                summary.lost += lost
                opened = volume.report(settings.client_name, stop)
                opened.open()
                report = opened  # only now is there something to conclude
            else:
                report.open()
            with suppress(Interrupted):  # checked again before the first call
                monitor.ping("start", stop, ended_by=FIRST)
            _log_start(settings, report)
            _wait_for_earlier_call(seconds_at_work, stop)
            with closing(Transport.from_settings(settings, stop)) as transport:
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
        summary.end(ending, fail_on_no_progress=settings.fail_on_no_progress)
        return _conclude(report, summary, monitor, stop)


def _warn_of_unresolved(runs: list[PastRun], unreadable: list[str], directory: Path) -> bool:
    """Whether a window of an earlier run is unresolved, or may be; logs warnings then."""
    windows = unresolved_windows(runs)
    for sentence in unreadable:
        log_event(logging.WARNING, "ignored", sentence)
    if windows:
        log_event(
            logging.WARNING,
            "unresolved",
            f"Windows of earlier runs that are unresolved: {len(windows)}. Recover their exams: python -m app recover"
            f" {directory}",
            windows=len(windows),
        )
    return bool(windows or unreadable)


def _conclude(report: CsvReport, summary: Summary, monitor: Monitor, stop: Stop) -> int:
    """Close the CSV, keep the summary, report to the monitor, and only then give the CSV its final name."""
    _finish(report.close, summary)
    _finish(lambda: report.save(summary.as_object()), summary)
    summary.log_end()
    code = summary.exit_code
    _ping_end(monitor, summary, stop)
    _finish(report.publish, summary)
    if summary.exit_code != code:
        _ping_end(monitor, summary, stop)
    return summary.exit_code


def _finish(step: Callable[[], None], summary: Summary) -> None:
    """Take one of the steps that close the output. If nothing else had failed, its failure is the run's."""
    try:
        step()
    except OutputFailed as failure:
        log_event(logging.ERROR, "output_failed", str(failure))
        summary.end(Ending(Outcome.FAILED, failure))


def _ping_end(monitor: Monitor, summary: Summary, stop: Stop) -> None:
    with suppress(Interrupted):
        monitor.ping(f"{summary.alarm_code:d}", stop, summary.as_object(), ended_by=SECOND)


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
    """Wait, as two calls that Proctor works on at the same time change the same exams twice."""
    if seconds > 0:
        log_event(
            logging.WARNING,
            "earlier_call",
            f"Proctor may still be working on the last call of an earlier run: waiting {seconds:.0f} s for it to end.",
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
