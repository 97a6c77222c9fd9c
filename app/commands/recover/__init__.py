"""Exams that Proctor changed and no CSV has: the query that finds them, and the CSV that they are written to."""

from app import settings
from app.commands.recover.options import Options
from app.commands.recover.print_query import print_query, query_for
from app.commands.recover.stdout import print_found, print_log
from app.commands.recover.take_found import acknowledge, take_found
from app.commands.recover.take_log import take_log
from app.exceptions import OutputFailed
from app.output.volume import unusable
from app.signals import Stop


def recover(options: Options, stop: Stop) -> int:
    """Do what the options say; return the exit code.

    Raises:
        Failure: it cannot be done. Then nothing was changed, or doing it again does the rest.
        Interrupted: a signal was received while something was read or printed; nothing was changed.
    """
    settings.read_variables({}).apply()  # for its log; no setting is needed
    directory = options.directory
    if directory is None:
        if options.log:
            return print_log(options.log, options, stop)
        if options.found:
            return print_found(options.found, options, stop)
        return print_query(options.windows, [], options, stop)
    if options.log:
        return take_log(directory, options.log, options, stop)
    if options.found:
        return take_found(directory, options.found, options, stop)
    if options.acknowledge is not None:
        return acknowledge(directory, options.acknowledge)
    try:
        return query_for(directory, options, stop)
    except OSError as error:
        raise OutputFailed(unusable(directory, error)) from None
