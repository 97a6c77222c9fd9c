"""Tries hard to lose an exam: random worlds, faults and ends of the real job, judged by the server's own record.

    python -m tests.tools.campaign --runs 1000 --seed 1

Each run draws a world from its own seed and starts the job in it again and again, each time with another trouble, until
nothing is left. Then every exam that the embedded Proctor changed must stand in exactly one row (of all CSVs together,
or of those that the log holds because a CSV could not be written), or have been changed within a window that is named.
The job is forked from a process that has done its imports; apart from that it is the real one.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, count, pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import trustme

from app.simulator import LATE_FAULTS, Outcome, Scenario, Simulator
from tests.support import rows_of
from tests.tools.sabotage import FAILURES, KILLS, Ordeal, job

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["app.cli", "app.commands.run", "requests", "tenacity", "tests.tools.sabotage"])

RARE_FAULTS = (
    *LATE_FAULTS,
    *(
        "silence-before silence-after drip huge not-utf8 odd-records sign-in 103-after 302 302-late 401-basic 403 404"
        " 404-late 405 407 408-after 418 429:1 503:date 503-slow 504-half 524-after cut-lines foreign-audience"
        " maintenance-200 null-list empty-list no-list plain-http"
    ).split(),
)
SIGNALS: tuple[tuple[int, ...], ...] = (
    (signal.SIGKILL,),
    (signal.SIGTERM,),
    (signal.SIGINT,),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGKILL),
)
WRONG_WAYS: dict[str, tuple[str, set[int]]] = {  # and the exit codes that they may end with
    "HTTP_PROXY": ("http://127.0.0.1:1", {69}),
    "PROCTOR_URL": ("http://proctor.invalid", {69}),
    "AUTH_URL": ("http://127.0.0.1:1/token", {69}),
    "AUTH_PASSWORD": ("wrong", {77}),
    "CLIENT_NAME": ("NOBODY", {65, 77}),  # 77 if Proctor also answers 401 twice
    "MAX_ATTEMPTS": ("many", {78}),
    "TLS_CA_FILE": ("", {78}),  # that of another authority, where there is TLS
}
EXIT_CODES = {0, 65, 69, 74, 75, 76, 77, 78, 130, 143, -signal.SIGINT, -signal.SIGKILL, -signal.SIGTERM}
ATTEMPTS = 16
QUIET_ATTEMPTS = 4  # the last ones of a run, without any trouble or fault
PATIENCE = 60  # seconds after which a job is said to hang


class Watched(Simulator):
    """An embedded Proctor that tells of the moments of a call: its request has been read, its work is done."""

    moment: Callable[[], None] = staticmethod(lambda: None)

    def begin(self, entry: dict[str, Any]) -> None:
        super().begin(entry)
        self.moment()

    def work(self, half: bool) -> Outcome:
        done = super().work(half)
        self.moment()
        return done


class Pipe:
    """A pipe for the CSV. Its reader takes a little at a time, or waits for `leave`."""

    def __init__(self, path: Path, patient: bool) -> None:
        os.mkfifo(path)
        self.received = b""
        self._source: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._sink = os.open(path, os.O_WRONLY)  # so that the reader sees no end before the job has begun to write
        self._reader = threading.Thread(target=self._read)
        if patient:
            os.set_blocking(self._source, True)
            self._reader.start()

    def leave(self) -> None:
        """Take what is there, and go."""
        if self._source is not None:
            self._read()
            os.close(self._source)
            self._source = None

    def close(self) -> None:
        """Read to the end; nobody writes any more."""
        os.close(self._sink)
        if self._reader.ident:
            self._reader.join()
        self.leave()

    def _read(self) -> None:
        assert self._source is not None
        with suppress(BlockingIOError):
            while piece := os.read(self._source, 1000):
                self.received += piece


@dataclass
class Tally:
    """What happened, and what must not."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def merge(self, other: "Tally") -> None:
        for name in "counts", "faults", "troubles", "exits":
            getattr(self, name).update(getattr(other, name))
        self.broken += other.broken


class Run:
    """One world, played until nothing is left in it."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.directory = directory
        self.chance = random.Random(seed)
        self.tally = Tally()
        self.scenario = draw(self.chance, seed)
        self.to = self.chance.choice(("volume", "volume", "volume", "file", "pipe"))
        self.tls = self.chance.random() < 0.2
        self.simulator = Watched(self.scenario, certificate=certificate(directory) if self.tls else None)
        self.settings = {
            **self.simulator.settings(),
            "MAX_WAIT": "0",
            "MAX_ATTEMPTS": "8",
            "MAX_LOST_RESPONSES": "100",
            "READ_TIMEOUT": "0.5",
            "LOG_FORMAT": "json",
            **({"OUTPUT_DIR": str(directory)} if self.to == "volume" else {}),
            **({"TLS_CA_FILE": trusted(directory, "ours")} if self.tls else {}),
        }
        self.troubles = {
            "volume": [self.nothing, self.signals, self.kill, self.storage, self.way, self.crowd, self.silence],
            "file": [self.nothing, self.signals, self.storage, self.way],
            "pipe": [self.nothing, self.signals, self.reader, self.way],
        }[self.to]
        self.jobs: list[BaseProcess] = []
        self.pipes: list[Pipe] = []
        self.patient = True
        (directory / "log").touch()

    def play(self) -> Tally:
        with self.simulator:
            for attempt in range(ATTEMPTS):
                if attempt < ATTEMPTS - QUIET_ATTEMPTS:
                    codes = self.chance.choice(self.troubles)()
                else:
                    self.calm()
                    codes = self.nothing()
                if codes == [0]:
                    break
            else:
                self.broken("it comes to no end")
        self.judge()
        return self.tally

    def broken(self, what: str) -> None:
        self.tally.broken.append(f"seed {self.seed}: {what}"[:2000])

    def calm(self) -> None:
        self.scenario.fault_rate = 0
        self.scenario.faults.clear()
        self.scenario.token_faults.clear()

    def start(
        self, changes: dict[str, str] | None = None, ordeal: Ordeal | None = None, log: str | None = "log"
    ) -> None:
        """Start a job, with some settings of its own."""
        self.tally.counts["jobs"] += 1
        stdout = os.devnull if self.to == "volume" else f"stdout-{self.tally.counts['jobs']}"
        if self.to == "pipe":
            self.pipes.append(Pipe(self.directory / stdout, self.patient))
        arguments = (self.settings | (changes or {}), str(self.directory), stdout, log, ordeal)
        self.jobs.append(CONTEXT.Process(target=job, args=arguments))
        self.jobs[-1].start()

    def finish(self) -> list[int]:
        """Wait for the end of the jobs; returns their exit codes."""
        codes = []
        for process in self.jobs:
            process.join(PATIENCE)
            if process.exitcode is None:
                self.broken("a job hangs")
                process.kill()
                process.join()
            codes.append(process.exitcode or 0)
        if strange := set(codes) - EXIT_CODES:
            self.broken(f"exit codes {strange}")
        self.jobs.clear()
        self.simulator.wait_idle()  # calls of a job that is gone may still be under way
        self.simulator.moment = lambda: None
        self.patient = True
        if self.to == "pipe":
            self.pipes[-1].close()
        self.tally.exits.update(map(str, codes))
        return codes

    def nothing(self) -> list[int]:
        self.start()
        return self.finish()

    def signals(self) -> list[int]:
        """Signals as the job starts, or at a moment of a call, or shortly after."""
        chosen = self.chance.choice([one for one in SIGNALS if self.to == "volume" or signal.SIGKILL not in one])
        delay, gap = self.chance.choice((0, 0, 0.003 * self.chance.random())), self.chance.choice((0, 0.005))
        self.tally.troubles[" and ".join(signal.Signals(signum).name for signum in chosen)] += 1

        def send(pid: int) -> None:
            time.sleep(delay)
            for signum in chosen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
                time.sleep(gap)

        def act() -> None:
            if not (pid := self.jobs[0].pid):
                return
            sender = threading.Thread(target=send, args=(pid,))
            sender.start()
            if not delay:
                sender.join()  # the server goes on when the signal is there

        if self.chance.random() < 0.1 and signal.SIGINT not in chosen:  # which a process that is being forked ignores
            self.start()
            act()
        else:
            self.at_a_moment(act)
            self.start()
        return self.finish()

    def kill(self) -> list[int]:
        """SIGKILL at a step of the output."""
        return self.endure(self.chance.choice(KILLS))

    def storage(self) -> list[int]:
        """A disk that fails from a step on."""
        return self.endure(self.chance.choice(list(FAILURES)))

    def endure(self, what: str) -> list[int]:
        self.tally.troubles[f"{what}"] += 1
        self.start(ordeal=Ordeal(1 + int(self.chance.expovariate(0.1)), what))
        return self.finish()

    def way(self) -> list[int]:
        """A setting that leads nowhere: nothing may be expired."""
        name, (value, codes) = self.chance.choice([*WRONG_WAYS.items()][: None if self.tls else -1])
        self.tally.troubles[f"{name} wrong"] += 1
        self.scenario.token_faults.clear()
        calls = len(self.simulator.record)
        if name == "TLS_CA_FILE":
            value = trusted(self.directory, "others")
        self.start({"MAX_ATTEMPTS": "2", name: value, **({"HTTPS_PROXY": value} if name == "HTTP_PROXY" else {})})
        ended = self.finish()
        if not set(ended) <= codes | {65} or any(call["expired"] for call in self.simulator.record[calls:]):
            self.broken(f"{name}={value} ended with {ended}")
        return ended

    def crowd(self) -> list[int]:
        """Some jobs at once on one volume."""
        number = self.chance.choice((2, 2, 10))
        self.tally.troubles[f"{number} at once"] += 1
        for _ in range(number):
            self.start()
        return self.finish()

    def silence(self) -> list[int]:
        """Stderr closed."""
        self.tally.troubles["stderr closed"] += 1
        self.start(log=None)
        return self.finish()

    def reader(self) -> list[int]:
        """The reader of the CSV goes away at a moment of a call."""
        self.tally.troubles["reader gone"] += 1
        self.patient = False
        self.at_a_moment(lambda: self.pipes[-1].leave())  # noqa: PLW0108 - the pipe is made by `start`
        self.start()
        return self.finish()

    def at_a_moment(self, act: Callable[[], object]) -> None:
        """Act once, at a moment of a call that is drawn here."""
        moments, chosen = count(), int(self.chance.expovariate(0.1))

        def moment() -> None:
            if next(moments) == chosen:
                act()

        self.simulator.moment = moment

    def judge(self) -> None:
        """Hold all that was written against the record of the server."""
        record, counts = self.simulator.record, self.tally.counts
        log = [json.loads(line) for line in (self.directory / "log").read_text().splitlines()]
        csvs, summaries = sorted(self.directory.glob("*.csv")), sorted(self.directory.glob("*.json"))
        stored = not any("storage" in trouble for trouble in self.tally.troubles)

        outputs = [pipe.received for pipe in self.pipes]
        outputs += [path.read_bytes() for path in csvs or self.directory.glob("stdout-*") if path.is_file()]
        if not stored:
            outputs = [whole_rows(output) for output in outputs]
        reports = [ids_of(output) for output in outputs if output]
        logged = [next(csv.reader([line["row"]]))[2] for line in log if line["event"] == "unwritten_row"]
        rows = Counter(chain(*reports, logged))

        windows = [window for path in summaries for window in json.loads(path.read_text())["lost"]]
        if not stored or self.to != "volume":
            windows += [line for line in log if line["event"] in ("response_lost", "killed_run")]
        expired = {exam for call in record for exam in call["expired"]}
        lost = [call for call in record if set(call["expired"]) - rows.keys()]
        unnamed = [call for call in lost if not any(within(call["changed"], window) for window in windows)]

        # A server that repeats an answer to the next job cannot be seen through; within a job it is.
        repeats = any(call["fault"] == "repeat" for call in record)
        doubled = [
            exam
            for counted in (map(Counter, reports) if repeats else [rows])
            for exam, number in counted.items()
            if number > 1 and exam in expired
        ]
        made_up = {exam for exam in rows if exam not in expired}
        if any(call["fault"] == "odd-records" for call in record):
            made_up = {exam for exam in made_up if exam.startswith(f"{self.seed:08x}-")}
        abrupt = any("KILL" in trouble.upper() or " and " in trouble for trouble in self.tally.troubles)
        overlaps = [
            (one, other)
            for one, other in pairwise(sorted(record, key=lambda call: str(call["start"])))
            if one["delivered"] and other["start"] < one.get("changed", one["start"])
        ]
        wrong = {
            "doubled": doubled,
            "made up": made_up,
            "not named": unnamed,
            "two calls at once": overlaps if not windows and not abrupt else [],
            "partial left": list(self.directory.glob("*.partial")),
            "csv without summary": {path.stem for path in csvs} ^ {path.stem for path in summaries} if stored else [],
            "bug": [line for line in log if "traceback" in line],
        }
        for what, found in wrong.items():
            if found:
                self.broken(f"{what}: {found}")
        self.tally.faults.update(call["fault"] for call in record)
        counts["runs"] += 1
        counts["calls"] += len(record)
        counts["exams expired"] += len(expired)
        counts["rows in a CSV"] += rows.total() - len(logged)
        counts["rows in the log"] += len(logged)
        counts["answers lost and named"] += len(lost) - len(unnamed)
        counts["answers lost, not named"] += len(unnamed)
        counts["exams doubled"] += len(doubled)
        counts["exams missing"] += len({exam for call in unnamed for exam in call["expired"]} - rows.keys())


def draw(chance: random.Random, seed: int) -> Scenario:
    """The world of a run."""
    return Scenario(
        exams=chance.choice((0, chance.randrange(50), chance.randrange(400), chance.randrange(400))),
        limit=chance.choice((1 + chance.randrange(9), 10, 50, 100)),
        not_due=chance.choice((0, 0, chance.randrange(30), chance.randrange(120))),
        seed=seed,
        latency=chance.choice((0, 0, 0, 0.002, 0.02)),
        token_calls=chance.choice((0, 0, 1, 3)),
        token_seconds=chance.choice((3600, 3600, 1)),
        with_status=chance.random() > 0.1,
        empty_list=chance.choice(("null", "null", "list", "missing")),
        faults=chance.choices(("ok", *RARE_FAULTS), k=8) if chance.random() < 0.2 else [],
        fault_rate=chance.choice((0, 0.2, 0.4, 0.8)),
        token_faults=chance.choices(
            ("ok", "503", "reset", "429:0", "html", "no-token", "401", "silence"), (9, 3, 3, 3, 1, 1, 1, 1), k=3
        ),
    )


def ids_of(content: bytes) -> list[str]:
    return [row["examId"] for row in rows_of(content)]


def whole_rows(content: bytes) -> bytes:
    """Without the torn row that a disk leaves which neither takes the rest nor gives it back."""
    head, line_break, _ = content.rpartition(b"\r\n")
    return head + line_break


def within(changed: str, window: dict[str, Any]) -> bool:
    return bool(window["start"] <= changed.replace("+00:00", "Z") <= window["end"])


@cache
def authority(_name: str) -> trustme.CA:
    return trustme.CA()


def trusted(directory: Path, name: str) -> str:
    """A PEM file with the certificate of an authority."""
    return pem_file(directory / f"{name}.pem", authority(name).cert_pem)


def certificate(directory: Path) -> tuple[str, str]:
    """The PEM files, certificate and key, of a server that `ours` vouches for."""
    issued = authority("ours").issue_cert("127.0.0.1")
    return (
        pem_file(directory / "server.pem", issued.cert_chain_pems[0]),
        pem_file(directory / "key.pem", issued.private_key_pem),
    )


def pem_file(path: Path, pem: trustme.Blob) -> str:
    path.write_bytes(pem.bytes())
    return str(path)


def one_run(seed: int) -> Tally:
    with tempfile.TemporaryDirectory() as name:
        run = Run(seed, Path(name))
        try:
            return run.play()
        except Exception:
            run.broken(traceback.format_exc())  # what was written cannot even be read
            return run.tally


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the first run; drawn where it is not given")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once (default: one a processor)")
    options = parser.parse_args(arguments)
    first = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"{options.runs} runs from seed {first}", flush=True)
    total = Tally()
    with ProcessPoolExecutor(options.workers, mp_context=CONTEXT) as pool:
        for tally in pool.map(one_run, range(first, first + options.runs)):
            total.merge(tally)
            for line in tally.broken:
                print(f"BROKEN {line}", flush=True)
    for heading, numbers in (
        ("", total.counts),
        ("fault: ", total.faults),
        ("trouble: ", total.troubles),
        ("exit code: ", total.exits),
    ):
        for name, number in sorted(numbers.items()):
            print(f"{heading + name:<40} {number:>12,}")
    return 1 if total.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
