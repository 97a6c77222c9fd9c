"""One run of the campaign: a scenario, in which the job is started until nothing is left, each time disturbed anew."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from app.simulator import Scenario
from tests.tools.processes import Job, Pipe, Watched
from tests.tools.sabotage import FAILURES, KILLS, REPORT, Sabotage, job
from tests.tools.scenarios import READ_TIMEOUT, SIGNALS, WRONG_SETTINGS, certificate, draw, trusted

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["app.cli", "app.commands.run", "requests", "tenacity", "tests.tools.sabotage"])

ATTEMPTS = 16
QUIET_ATTEMPTS = 4  # the last ones, without any disturbance or fault
PATIENCE = 60  # seconds after which a job is said to hang


class Trial:
    """A scenario, and all jobs that ran in it."""

    def __init__(self, seed: int, directory: Path, sabotage: bool, scenario: Scenario | None = None) -> None:
        """Draws what is not given; `sabotage` is whether the library for it is loaded."""
        self.seed = seed
        self.directory = directory
        self.problems: list[str] = []
        self.jobs: list[Job] = []
        self.pipes: list[Pipe] = []
        self._running: list[Job] = []
        self.seconds_ahead = 0
        self._chance = chance = random.Random(seed)
        self.scenario = scenario or draw(chance, seed)
        self.output = "volume" if scenario else chance.choice(("volume", "volume", "volume", "file", "pipe"))
        self._tls = not scenario and chance.random() < 0.2
        self.simulator = Watched(self.scenario, certificate=certificate(directory) if self._tls else None)
        self.heartbeat_secret = f"ping-{chance.getrandbits(64):x}"
        self._settings = self._draw_settings()
        self._patient = True
        self._disturbances = {
            "volume": [self._nothing, self._signals, self._wrong_setting, self._crowd, self._no_stderr],
            "file": [self._nothing, self._signals, self._wrong_setting],
            "pipe": [self._nothing, self._signals, self._wrong_setting, self._reader_gone],
        }[self.output]
        if sabotage:
            self._disturbances += [self._storage, self._clock]
            self._disturbances += [self._kill, self._kill] if self.output == "volume" else []

    def _draw_settings(self) -> dict[str, str]:
        chance, settings = self._chance, self.simulator.settings()
        settings |= {
            "MAX_WAIT": "0",
            "MAX_ATTEMPTS": "8",
            "MAX_LOST_RESPONSES": "100",
            "READ_TIMEOUT": str(READ_TIMEOUT),
            "CONNECT_TIMEOUT": "1",  # the run after a killed one waits as long as both
            "LOG_FORMAT": "json",
            "LOG_LEVEL": chance.choice(("DEBUG", "INFO")),
        }
        if self.scenario.token_endpoint == "keycloak" and chance.random() < 0.5:
            settings["AUTH_CLIENT_AUTH"] = "basic"
        if chance.random() < 0.1:
            settings["AUTH_GRANT_TYPE"] = "client_credentials"
            del settings["AUTH_USERNAME"], settings["AUTH_PASSWORD"]
        if chance.random() < 0.2:
            settings["HEARTBEAT_URL"] = f"{self.simulator.url}/{self.heartbeat_secret}"
        if self.output == "volume":
            settings["OUTPUT_DIR"] = str(self.directory)
        if self._tls:
            settings["TLS_CA_FILE"] = trusted(self.directory, "ours")
        return settings

    @property
    def storage_failed(self) -> bool:
        """Whether a disk was full, defective or read-only, for a while at least."""
        return any(job.sabotage and "storage" in job.sabotage.what for job in self.jobs)

    def play(self) -> None:
        """Start jobs until one ends well."""
        with self.simulator:
            for attempt in range(ATTEMPTS):
                if attempt < ATTEMPTS - QUIET_ATTEMPTS:
                    codes = self._chance.choice(self._disturbances)()
                else:
                    self._calm()
                    codes = self._nothing()
                if codes == [0]:
                    break
            else:
                self.problems.append("it does not end")
            self.simulator.wait_idle()

    def play_sabotage(self, sabotage: Sabotage) -> str:
        """Start a job with that sabotage, then one without; returns the sabotaged step, empty if there was none."""
        with self.simulator:
            self._sabotage(sabotage)
            if self._nothing() not in ([0], [65]):
                self.problems.append("the job after it fails")
            self.simulator.wait_idle()
        return self.jobs[0].step

    def _calm(self) -> None:
        self.scenario.fault_rate = 0
        self.scenario.faults.clear()
        self.scenario.token_faults.clear()

    def _start(
        self,
        disturbance: str,
        changes: dict[str, str] | None = None,
        sabotage: Sabotage | None = None,
        stderr: bool = True,
    ) -> None:
        """Start a job, with some settings of its own."""
        number = len(self.jobs)
        log = f"log-{number}" if stderr else None
        stdout = os.devnull if self.output == "volume" else f"stdout-{number}"
        if self.output == "pipe":
            self.pipes.append(Pipe(self.directory / stdout, self._patient))
        arguments = (self._settings | (changes or {}), str(self.directory), stdout, log, sabotage)
        process = CONTEXT.Process(target=job, args=arguments)
        record = self.simulator.record
        self.jobs.append(Job(process, self.directory / log if log else None, disturbance, sabotage, len(record)))
        self._running.append(self.jobs[-1])
        self.simulator.token_faults.clear()
        process.start()

    def _finish(self) -> list[int]:
        """Wait for the end of the jobs; returns their exit codes."""
        running, self._running = self._running, []
        for ended in running:
            ended.process.join(PATIENCE)
            if ended.process.exitcode is None:
                self.problems.append("a job hangs")
                ended.process.kill()
                ended.process.join()
            ended.code = ended.process.exitcode or 0
        self.simulator.moment = lambda: None
        if self.output != "volume":
            self.simulator.wait_idle()  # only a volume informs the next job of a call that is under way
        for ended in running:
            ended.calls = self.simulator.record[ended.first_call :]
            ended.token_faults = list(self.simulator.token_faults)
        self._patient = True
        if self.output == "pipe":
            self.pipes[-1].close()
        return [ended.code for ended in running]

    def _nothing(self) -> list[int]:
        self._start("undisturbed")
        return self._finish()

    def _signals(self) -> list[int]:
        """Signals as the job starts, or at a moment of a call, or shortly after."""
        chance = self._chance
        chosen = chance.choice([one for one in SIGNALS if self.output == "volume" or signal.SIGKILL not in one])
        delay, gap = chance.choice((0, 0, 0.003 * chance.random())), chance.choice((0, 0.005))
        name = " and ".join(signal.Signals(signum).name for signum in chosen)

        def send(pid: int) -> None:
            time.sleep(delay)
            for signum in chosen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
                time.sleep(gap)

        def act() -> None:
            if not (pid := self.jobs[-1].process.pid):
                return
            sender = threading.Thread(target=send, args=(pid,))
            sender.start()
            if not delay:
                sender.join()  # the server goes on when the signal is there

        if chance.random() < 0.1 and signal.SIGINT not in chosen:  # which a process that is being forked ignores
            self._start(f"{name} at the start")
            act()
        else:
            self._at_a_moment(act)
            self._start(name)
        return self._finish()

    def _kill(self) -> list[int]:
        return self._sabotage(Sabotage(self._step(), self._chance.choice(KILLS)))

    def _storage(self) -> list[int]:
        failure = self._chance.choice(list(FAILURES))
        return self._sabotage(Sabotage(self._step(), failure, once=self._chance.random() < 0.3))

    def _clock(self) -> list[int]:
        """A clock that is wrong until it is set; all of a trial's are wrong by as much."""
        self.seconds_ahead = self.seconds_ahead or self._chance.choice((-3600, -5, 5, 3600))
        return self._sabotage(Sabotage(self._step(), "clock set", seconds=self.seconds_ahead))

    def _step(self) -> int:
        return 1 + int(self._chance.expovariate(self._chance.choice((0.2, 0.08, 0.02))))

    def _sabotage(self, sabotage: Sabotage) -> list[int]:
        report = self.directory / REPORT
        report.unlink(missing_ok=True)
        self._start(sabotage.what, sabotage=sabotage)
        codes = self._finish()
        if report.exists():
            self.jobs[-1].step = report.read_text().strip()
        return codes

    def _wrong_setting(self) -> list[int]:
        """A setting that leads nowhere: nothing may be expired."""
        name, (value, codes) = self._chance.choice([*WRONG_SETTINGS.items()][: None if self._tls else -1])
        self.scenario.token_faults.clear()
        if name == "TLS_CA_FILE":
            value = trusted(self.directory, "others")
        proxy = {"HTTPS_PROXY": value} if name == "HTTP_PROXY" else {}
        self._start(f"{name} wrong", {"MAX_ATTEMPTS": "2", name: value, **proxy})
        ended = self._finish()
        if name == "CLIENT_NAME":
            for call in self.jobs[-1].calls:
                call["fault"] = "500"  # whatever was drawn for it
        if not set(ended) <= codes | {65} or any(call["expired"] for call in self.jobs[-1].calls):
            self.problems.append(f"{name}={value} ended with {ended}")
        return ended

    def _crowd(self) -> list[int]:
        """Some jobs at once on one volume."""
        for _ in range(self._chance.choice((2, 2, 10))):
            self._start("others at once")
        return self._finish()

    def _no_stderr(self) -> list[int]:
        self._start("stderr closed", stderr=False)
        return self._finish()

    def _reader_gone(self) -> list[int]:
        """The reader of the CSV goes away at a moment of a call."""
        self._patient = False
        self._at_a_moment(lambda: self.pipes[-1].leave())  # noqa: PLW0108 - the pipe is made by `_start`
        self._start("reader gone")
        return self._finish()

    def _at_a_moment(self, act: Callable[[], object]) -> None:
        """Act once, at a moment of a call that is drawn here."""
        moments, chosen = count(), int(self._chance.expovariate(0.1))

        def moment() -> None:
            if next(moments) == chosen:
                act()

        self.simulator.moment = moment
