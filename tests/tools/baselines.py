"""Other ways to do the job, for the benchmark alone: none of them survives a fault, none keeps what it got.

    python tests/tools/baselines.py bare|floor|naive

They take the same settings from the environment as the job, and write the same rows to stdout.
"""

import csv
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

COLUMNS = ("assessmentKey", "assessmentId", "examId", "studentId", "updatedExamStatus")
EXPIRE_URL = f"{os.environ['PROCTOR_URL']}/proctor/Services/exams/expire/{os.environ['CLIENT_NAME']}"
FORM = {"grant_type": "password"} | {
    name: os.environ[f"AUTH_{name.upper()}"] for name in ("client_id", "client_secret", "username", "password")
}


def bare() -> None:
    """One `requests.Session`; each batch is written, flushed and forced to disk."""
    import requests

    with requests.Session() as session:
        session.verify = os.environ.get("TLS_CA_FILE") or True
        token = session.post(os.environ["AUTH_URL"], data=FORM).json()["access_token"]
        session.headers["Authorization"] = f"Bearer {token}"
        write_each(session.post(EXPIRE_URL, json="").json() for _ in iter(int, 1))


def floor() -> None:
    """One connection of `http.client`; each batch is written, flushed and forced to disk."""
    import http.client
    import ssl
    from urllib.parse import urlencode, urlsplit

    where = urlsplit(EXPIRE_URL)
    assert where.hostname
    connection = http.client.HTTPConnection(where.hostname, where.port)
    if where.scheme == "https":
        context = ssl.create_default_context(cafile=os.environ["TLS_CA_FILE"])
        connection = http.client.HTTPSConnection(where.hostname, where.port, context=context)

    def post(path: str, body: str, headers: dict[str, str]) -> Any:
        connection.request("POST", path, body, headers)
        return json.loads(connection.getresponse().read())

    auth = urlsplit(os.environ["AUTH_URL"])
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    token = post(f"{auth.path}?{auth.query}", urlencode(FORM), form)["access_token"]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    write_each(post(where.path, '""', headers) for _ in iter(int, 1))


def naive() -> None:
    """A new connection for each call, all rows in memory, printed at the end."""
    import requests

    verify = os.environ.get("TLS_CA_FILE") or True
    token = requests.post(os.environ["AUTH_URL"], data=FORM, verify=verify).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    exams: list[dict[str, Any]] = []
    more = True
    while more:
        batch = requests.post(EXPIRE_URL, json="", headers=headers, verify=verify).json()
        exams += batch["expiredExams"] or []
        more = batch["additionalExamsToExpire"]
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    writer.writerows([exam[column] for column in COLUMNS] for exam in exams)


def write_each(batches: Iterator[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    durable = os.path.isfile("/dev/stdout")
    for batch in batches:
        writer.writerows([exam[column] for column in COLUMNS] for exam in batch["expiredExams"] or [])
        sys.stdout.flush()
        if durable:
            os.fsync(1)
        if not batch["additionalExamsToExpire"]:
            return


if __name__ == "__main__":
    {"bare": bare, "floor": floor, "naive": naive}[sys.argv[1]]()
