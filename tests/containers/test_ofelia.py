"""Scheduled runs: the real ofelia starts them in the compose stack, and the embedded Proctor's record judges them."""

import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from os import chown
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from urllib.parse import parse_qs

import pytest

from tests.containers.engine import UID
from tests.containers.mail import MailServer, mail_server
from tests.containers.secrets import secrets_in
from tests.containers.stack import FINISHED, LOG, SOON, Stack
from tests.embedded import EmbeddedProctor
from tests.support import expired, rows_of


@pytest.fixture
def slack(stack: Stack) -> Iterator[SimpleQueue[dict[str, str]]]:
    """A receiver of Slack messages, which ofelia gets from an override file, as the README describes."""
    messages: SimpleQueue[dict[str, str]] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            messages.put(json.loads(parse_qs(body)["payload"][0]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((stack.engine.host, 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://{stack.engine.host}:{server.server_address[1]}/hook"
        stack.label_ofelia({"slack-webhook": url, "slack-only-on-error": "true"})
        yield messages
        server.shutdown()
        thread.join()


@pytest.fixture
def mail(stack: Stack) -> Iterator[MailServer]:
    """A mail server, which ofelia gets in the same way."""
    with mail_server(stack.engine.host) as server:
        stack.label_ofelia(
            {
                "smtp-host": stack.engine.host,
                "smtp-port": str(server.port),
                "email-to": "oncall@example.org,lead@example.org",
                "email-from": "ofelia@example.org",
                "mail-only-on-error": "true",
            }
        )
        yield server


def test_a_run_starts_by_itself_and_leaves_report_and_log_on_the_volume(stack: Stack, proctor: EmbeddedProctor) -> None:
    stack.up(SCHEDULE=SOON)
    assert "failed: false" in stack.log("ofelia", FINISHED)
    owner, *files = stack.execute("sh", "-c", "id -u; stat -c '%u %a %n' /output/*").stdout.decode().splitlines()
    assert owner == str(UID)
    assert {line.rsplit(".")[-1] for line in files} >= {"csv", "json", "log"}
    assert all(line.startswith(f"{UID} 640 ") for line in files)
    assert stack.health()[0] == 0
    logs = stack.compose("logs").stdout + stack.execute("cat", LOG).stdout
    assert secrets_in(logs, proctor) == []
    assert stack.compose("down").returncode == 0
    (rows, summary), *_ = stack.reports()
    assert sorted(row["examId"] for row in rows) == sorted(expired(proctor))
    assert (len(rows), summary["outcome"], summary["exit_code"]) == (250, "drained", 0)
    log = [json.loads(line) for line in (stack.fetch() / Path(LOG).name).read_text().splitlines()]
    assert next(event["summary"] for event in log if event["event"] == "end") == summary


def test_a_changed_schedule_takes_effect_with_the_next_up(stack: Stack, proctor: EmbeddedProctor) -> None:
    stack.up()
    stack.up(SCHEDULE=SOON)
    assert "failed: false" in stack.log("ofelia", FINISHED)
    assert len(expired(proctor)) == 250


def test_a_failed_run_is_in_ofelias_log_and_in_slack_and_makes_the_stack_unhealthy(
    stack: Stack, proctor: EmbeddedProctor, slack: SimpleQueue[dict[str, str]]
) -> None:
    proctor.scenario.faults = ["403"] * 100
    stack.up(SCHEDULE=SOON)
    assert "failed: true, skipped: false, error: error non-zero exit code: 77" in stack.log("ofelia", FINISHED)
    assert stack.log("ofelia", '"event": "end"')  # the job's own log is there, too
    message = slack.get(timeout=60)
    assert "exit code: 77" in message["attachments"][0]["text"]  # type: ignore[index]
    code, output = stack.health()
    assert code == 1
    assert "77" in output


def test_a_failed_run_is_reported_by_mail_with_its_log(
    stack: Stack, proctor: EmbeddedProctor, mail: MailServer
) -> None:
    proctor.scenario.faults = ["hold", *["403"] * 100]
    stack.up(SCHEDULE=SOON)
    assert proctor.held.wait(60)
    proctor.release.set()
    message = mail.messages.get(timeout=60)
    assert message["From"] == "ofelia@example.org"
    assert message["X-Envelope-To"] == "oncall@example.org, lead@example.org"
    assert message["Subject"].startswith("[Execution failed] Job force-submit finished in ")
    log, _, details = (part.get_content() for part in message.iter_attachments())
    assert json.loads(log.splitlines()[-1])["summary"]["exit_code"] == 77
    assert secrets_in(log + details, proctor) == []


def test_a_successful_run_sends_no_mail(stack: Stack, proctor: EmbeddedProctor, mail: MailServer) -> None:
    stack.up(SCHEDULE=SOON)
    assert stack.log("ofelia", f"{FINISHED}, error: none", times=2)  # what the first one sends comes before the second
    assert mail.messages.empty()
    assert len(expired(proctor)) == 250


def test_runs_are_reported_to_files_in_a_directory_of_any_user(
    stack: Stack, proctor: EmbeddedProctor, tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir(mode=0o700)
    chown(folder, 1000, 1000)
    stack.label_ofelia({"save-folder": "/reports"}, f"{folder}:/reports")
    stack.up(SCHEDULE=SOON)
    assert stack.log("ofelia", f"{FINISHED}, error: none", times=2)  # what the first one saves comes before the second
    first, *_ = sorted(folder.glob("*_force-submit.stdout.log"))
    summary = json.loads(first.read_text().splitlines()[-1])["summary"]
    assert sum(summary["exams"].values()) == len(expired(proctor)) == 250


def test_a_run_goes_on_to_its_end_while_the_api_proxy_restarts(stack: Stack, proctor: EmbeddedProctor) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    stack.up(SCHEDULE=SOON)
    assert proctor.held.wait(60)
    assert stack.compose("restart", "docker-api").returncode == 0
    # ofelia reports the run as failed although it goes on, and starts another one, which finds it under way.
    assert "error inspecting exec: cannot connect" in stack.log("ofelia", FINISHED)
    assert stack.log("ofelia", "exit code: 75")
    assert len(proctor.record) == 2
    proctor.release.set()
    assert "failed: false" in stack.log("ofelia", f"{FINISHED}, error: none", tail="0")
    ended = json.loads(stack.job_log('"outcome": "drained"'))["summary"]
    assert (ended["calls"], ended["exit_code"], ended["lost"]) == (3, 0, [])
    assert stack.exam_ids() == sorted(expired(proctor))
    assert len(expired(proctor)) == 250


def test_runs_start_as_scheduled_after_a_restart_of_the_api_proxy(stack: Stack, proctor: EmbeddedProctor) -> None:
    stack.up(SCHEDULE=SOON)
    assert "failed: false" in stack.log("ofelia", FINISHED)
    assert stack.compose("restart", "docker-api").returncode == 0
    assert stack.log("ofelia", f"{FINISHED}, error: none", times=2, tail="0")
    assert stack.exam_ids() == sorted(expired(proctor))


def test_ofelia_stopped_in_the_middle_of_a_run_and_started_again_leaves_the_run_alone(
    stack: Stack, proctor: EmbeddedProctor
) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    stack.up(SCHEDULE=SOON)
    assert proctor.held.wait(60)
    assert stack.compose("stop", "ofelia").returncode == 0
    assert stack.compose("start", "ofelia").returncode == 0
    assert stack.log("ofelia", "exit code: 75", tail="0")
    assert len(proctor.record) == 2
    proctor.release.set()
    assert stack.log("ofelia", f"{FINISHED}, error: none", tail="0")
    assert stack.exam_ids() == sorted(expired(proctor))
    assert len(expired(proctor)) == 250


def test_a_run_longer_than_the_schedule_is_neither_started_twice_nor_ended_with_ofelia(
    stack: Stack, proctor: EmbeddedProctor
) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    stack.up(SCHEDULE=SOON)
    assert proctor.held.wait(60)
    assert stack.log("ofelia", "skipped: true", times=2)
    assert stack.job_log('"event": "start"')  # readable while the run goes on
    assert len(proctor.record) == 2
    stack.compose("kill", "ofelia")
    proctor.release.set()
    assert json.loads(stack.job_log('"event": "end"'))["summary"]["outcome"] == "drained"
    stack.execute("sh", "-c", "while ls /output/*.partial; do :; done")  # it gets its final name after that
    assert stack.exam_ids() == sorted(expired(proctor))
    assert len(expired(proctor)) == 250

    assert stack.compose("up", "-d").returncode == 0
    assert "failed: false" in stack.log("ofelia", FINISHED)

    # ofelia knows its job's container by name: the new one is found without ofelia being restarted.
    ofelia = stack.container("ofelia")
    recreated = stack.compose("up", "-d", "--force-recreate", "--no-deps", "standby")
    assert recreated.returncode == 0, recreated.stderr
    assert stack.container("ofelia") == ofelia
    assert stack.log("ofelia", f"{FINISHED}, error: none", times=2, tail="0")


def test_runs_start_in_a_standby_container_that_kept_its_temporary_name(stack: Stack, proctor: EmbeddedProctor) -> None:
    stack.up(SCHEDULE=SOON)
    # What `up` leaves if it is killed while it recreates standby; the next one does not rename it.
    stack.engine.docker("rename", stack.container("standby"), f"0123456789ab_{stack.project}-standby-1")
    assert stack.compose("restart", "ofelia").returncode == 0
    assert stack.log("ofelia", f"{FINISHED}, error: none", tail="0")
    assert len(expired(proctor)) == 250


def test_a_run_by_hand_beside_a_scheduled_one_ends_and_changes_nothing(stack: Stack, proctor: EmbeddedProctor) -> None:
    proctor.scenario.faults = ["hold"]
    stack.up(SCHEDULE=SOON)
    assert proctor.held.wait(60)
    assert stack.compose("run", "--rm", "force-submit").returncode == 75
    assert len(proctor.record) == 1
    proctor.release.set()
    assert "failed: false" in stack.log("ofelia", FINISHED)
    assert stack.exam_ids() == sorted(expired(proctor))


def test_down_in_the_middle_of_a_run_waits_for_the_call_under_way_alone(stack: Stack, proctor: EmbeddedProctor) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    stack.up(SCHEDULE=SOON)
    assert proctor.held.wait(60)
    with stack.engine.signals(stack.container("standby")) as signals:
        down = stack.start("down")
        assert "15" in next(signals)
        assert stack.job_log('"event": "signal"')
        proctor.release.set()
        down.communicate(timeout=120)
    assert down.returncode == 0
    assert len(proctor.record) == 2
    ((rows, summary),) = stack.reports()
    assert sorted(row["examId"] for row in rows) == sorted(expired(proctor))
    assert (summary["outcome"], summary["exit_code"], summary["lost"]) == ("interrupted", 128 + 15, [])
    last = (stack.fetch() / Path(LOG).name).read_text().splitlines()[-1]
    assert json.loads(last)["summary"] == summary


def test_a_standby_container_that_is_killed_in_the_middle_of_a_run_is_recovered(
    stack: Stack, proctor: EmbeddedProctor
) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    stack.up(SCHEDULE=SOON, READ_TIMEOUT="20", CONNECT_TIMEOUT="2")
    assert proctor.held.wait(60)
    stack.compose("kill", "standby")
    assert "exit code: 137" in stack.log("ofelia", FINISHED)
    proctor.release.set()
    assert stack.compose("up", "-d").returncode == 0
    assert stack.log("ofelia", "exit code: 65")  # what the killed run lost must not go unseen
    stack.compose("down")
    (killed, summary), (following, _), *_ = stack.reports()
    first, lost, last, *_ = proctor.record
    assert sorted(row["examId"] for row in killed) == sorted(first["expired"])
    assert sorted(row["examId"] for row in following) == sorted(last["expired"])
    (window,) = summary["lost"]
    assert window["start"] <= lost["changed"].replace("+00:00", "Z") <= window["end"]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for some of the rows."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    output = disk / "output"
    output.mkdir()
    subprocess.run(["chown", f"{UID}:{UID}", output], check=True)
    yield output
    subprocess.run(["umount", disk], check=True)


def test_rows_that_a_full_volume_cannot_take_are_in_ofelias_log(
    full: Path, stack: Stack, proctor: EmbeddedProctor
) -> None:
    stack.up(SCHEDULE=SOON, OUTPUT=str(full))
    assert "exit code: 74" in stack.log("ofelia", FINISHED)
    written = [row["examId"] for path in full.glob("*.csv*") for row in rows_of(path.read_bytes())]
    log = stack.compose("logs", "--no-log-prefix", "ofelia").stdout.decode()
    lost = [exam_id for exam_id in expired(proctor) if exam_id not in written and exam_id not in log]
    assert 0 < len(written) < len(expired(proctor))
    assert lost == []
    stack.compose("down")
