"""What --help says besides the options: what each command does, settings, examples, exit codes."""

from app.exceptions import ExitCode

JOB = """\
Without a COMMAND: expires overdue exams through Proctor, and writes a CSV row
for each, on stdout or in OUTPUT_DIR.
"""

_MEANINGS = {
    ExitCode.OK: "all done, or no progress left to make",
    ExitCode.PROBLEMS_FOUND: "history: something is wrong or unresolved",
    ExitCode.USAGE: "wrong usage",
    ExitCode.RESPONSES_LOST: "responses lost: exams may be missing, see recover",
    ExitCode.UNAVAILABLE: "Proctor or the token endpoint is unavailable",
    ExitCode.BUG: "a bug",
    ExitCode.OUTPUT: "the CSV could not be written, see recover --log",
    ExitCode.TRY_LATER: "another run, MAX_RUNTIME, or FAIL_ON_NO_PROGRESS",
    ExitCode.UNEXPECTED_RESPONSE: "a response that is not Proctor's",
    ExitCode.CREDENTIALS: "credentials rejected",
    ExitCode.CONFIGURATION: "a wrong setting",
}
_CODES = "".join(f"  {code:<9} {meaning}\n" for code, meaning in _MEANINGS.items())

SETTINGS_AND_CODES = f"""\
settings: each is looked up in the environment (NAME, or the file that NAME_FILE
names), in the file /run/secrets/<name in lower case>, then in .env (NAME=value).
  required    PROCTOR_URL CLIENT_NAME AUTH_URL AUTH_CLIENT_ID AUTH_CLIENT_SECRET
              AUTH_USERNAME AUTH_PASSWORD (these two not for client_credentials)
  optional    AUTH_GRANT_TYPE AUTH_SCOPE AUTH_CLIENT_AUTH TLS_CA_FILE TLS_VERIFY
              CONNECT_TIMEOUT READ_TIMEOUT MAX_ATTEMPTS MAX_WAIT MAX_RUNTIME
              MAX_LOST_RESPONSES FAIL_ON_NO_PROGRESS OUTPUT_DIR LOG_LEVEL
              LOG_FORMAT HEARTBEAT_URL
The command check shows their values. README.md and .env.example explain them.

examples:
  python -m app check
  python -m app > expired.csv
  mkdir output && OUTPUT_DIR=output python -m app

exit codes:
{_CODES}\
  128 + n   ended by signal n: SIGHUP 129, SIGINT 130, SIGTERM 143; killed 137
"""

CHECK = """\
Verifies settings, output, token and endpoint without expiring anything. Prints
all settings with their values (not those of secrets) and sources, and a line for
each of the four that begins with ok or FAILED. Ends with 0, or with the exit code
that a run would end with.

example:
  python -m app check
"""

DEMO = """\
Runs the job against an embedded Proctor on this machine, with made-up exams. The
CSV goes to stdout. No settings are needed; LOG_LEVEL and LOG_FORMAT are honoured.

examples:
  python -m app demo > expired.csv
  python -m app demo --exams 5000 > expired.csv
  python -m app demo --faults > expired.csv
"""

HISTORY = """\
Lists the runs in DIR. Ends with 1 if there is none, or while a lost response is
unresolved, a summary cannot be read, a killed run has no run after it, or the last
run of a client failed or is older than --max-age; otherwise with 0. No settings
are needed. What recovers exams: python -m app recover --help

example:
  python -m app history output --max-age 26
"""

RECOVER = """\
Recovers exams that are in no CSV. For the windows of lost responses, in two steps:

  python -m app recover output > query.sql
  mysql -N exam < query.sql | python -m app recover output --found -

The first prints one query for every unresolved window of the runs in output, an OUTPUT_DIR; any client of MySQL or
MariaDB can run it. The second writes the exams that no CSV there has to a CSV of their own, and marks the windows
as resolved. Both can safely be repeated. No settings are needed, but LOG_LEVEL and LOG_FORMAT are honoured.

The database stores times in the time zone of the exam service's JVM. A wrong --database-zone does no harm: the
second step detects it with an exam that is in a CSV, changes nothing, and prints the right one. Where no CSV has
an exam, verify the time zone by hand, and confirm it with --trust-zone.
"""

RECOVER_EXAMPLES_AND_CODES = """\
For rows that a run could write to its log alone (exit code 74), and to mark all windows as resolved by other means:

  python -m app recover output --log job.log
  python -m app recover output --acknowledge "asked the database team, ticket 4711"

For runs without OUTPUT_DIR, give the windows from the log, and the CSVs. No exam verifies the time zone there.

  python -m app recover --window 2026-11-22T02:00:00.679Z 2026-11-22T02:06:00.681Z > query.sql
  mysql -N exam < query.sql | python -m app recover --found - --trust-zone --csv expired.csv > recovered.csv

Exit codes: 0 done, or nothing to do; 64 wrong usage; 65 windows that the query did not ask for are unresolved; 74 a
file cannot be read or written, or DIR has no summary of a run; 75 a run is under way, the job must be run again after
one that was killed, or the query was run before the end of a window; 76 the list is not the complete result of the
query, or a row of the log cannot be read.
"""

STANDBY = """\
Verifies the settings, which are those of the job, then idles in the container
where a scheduler starts runs; see docker-compose.yml. A signal is passed on to
the runs under way there, and standby ends after them. Linux only.

example:
  python -m app standby
"""
