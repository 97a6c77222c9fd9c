"""What --help says besides the options: what each command does, settings, examples, exit codes."""

from app.exceptions import MEANINGS

JOB = """\
Without a COMMAND: expires overdue exams through Proctor, and writes a CSV row
for each, on stdout or in OUTPUT_DIR.
"""

_CODES = "".join(f"  {code:<9} {meaning}\n" for code, meaning in MEANINGS.items())

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

STANDBY = """\
Verifies the settings, which are those of the job, then idles in the container
where a scheduler starts runs; see docker-compose.yml. A signal is passed on to
the runs under way there, and standby ends after them. Linux only.

example:
  python -m app standby
"""
