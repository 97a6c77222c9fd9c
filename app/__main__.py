"""The entry point. With no argument it is the job: `commands.run` shows a run from beginning to end."""

import sys

from app.signals import Stop

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - pip installs the requirements on older ones without an error
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")

    stop = Stop()
    stop.install()  # before the slow imports: PID 1 of a container ignores signals until then

    from app.cli import main

    sys.exit(main(sys.argv[1:], stop))
