"""Tries hard to lose an exam: random worlds, faults and kills of the real job, judged by the server's own record.

    python -m tests.campaign --runs 1000 --seed 1

Each run draws a world and a volume from its own seed, starts the job on that volume, kills it at a random moment or
lets it end, and goes on so until nothing is left. Then every exam that the embedded Proctor changed must be in exactly
one row of all CSVs together, or have been changed within a window that a summary names.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from app.simulator import RANDOM_FAULTS, Simulator, World
from tests.conftest import rows_of

READ_TIMEOUT = 1.0
LATENCIES = (0, 0, 0, 0.002, 0.02)
KILLS: tuple[tuple[int, ...], ...] = (
    (signal.SIGKILL,),
    (signal.SIGTERM,),
    (signal.SIGINT,),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGKILL),
)
WELL_SAID = {"ok", "close", "no-flag"}  # answers that a run must have written if it lived to receive them


@dataclass
class Tally:
    """What happened, and the three numbers that must be nought."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def merge(self, other: "Tally") -> None:
        self.counts.update(other.counts)
        self.faults.update(other.faults)
        self.exits.update(other.exits)
        self.broken += other.broken


def job(settings: dict[str, str], directory: str) -> None:
    """The real job, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(directory)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)

    from app.commands import main
    from app.signals import Stop

    stop = Stop()
    stop.install()
    os._exit(main([], stop))


def draw(seed: int) -> tuple[World, random.Random]:
    """The world of a run."""
    chance = random.Random(seed)
    world = World(
        exams=chance.choice((0, chance.randrange(50), chance.randrange(400), chance.randrange(400))),
        limit=chance.choice((1 + chance.randrange(9), 10, 50, 100)),
        not_due=chance.choice((0, 0, chance.randrange(30), chance.randrange(120))),
        seed=seed,
        latency=chance.choice(LATENCIES),
        token_calls=chance.choice((0, 0, 1, 3)),
        token_seconds=chance.choice((3600, 3600, 1)),
        with_status=chance.random() > 0.1,
        fault_rate=chance.choice((0, 0.2, 0.4, 0.8)),
        token_faults=chance.choices(("ok", "503", "reset", "429:0"), k=3),
    )
    return world, chance


def one_run(seed: int) -> Tally:
    """Play one world to its end and judge it."""
    world, chance = draw(seed)
    tally = Tally()
    with tempfile.TemporaryDirectory() as name, Simulator(world) as simulator:
        directory = Path(name)
        settings = {
            **simulator.settings(),
            "OUTPUT_DIR": name,
            "MAX_WAIT": "0",
            "MAX_ATTEMPTS": "8",
            "MAX_LOST_RESPONSES": "100",
            "READ_TIMEOUT": str(READ_TIMEOUT),
            "LOG_FORMAT": "json",
        }
        for attempt in range(12):
            last = attempt == 11
            if last:
                world.fault_rate = 0
            process = CONTEXT.Process(target=job, args=(settings, name))
            process.start()
            if not last and chance.random() < 0.6:
                kill(process, chance, tally)
            process.join(60)
            if process.exitcode is None:
                process.kill()
                process.join()
                tally.broken.append(f"seed {seed}: a job hung")
            tally.exits[str(process.exitcode)] += 1
            tally.counts["jobs"] += 1
            if process.exitcode == 0:
                break
        judge(seed, simulator, directory, tally)
    return tally


def kill(process: BaseProcess, chance: random.Random, tally: Tally) -> None:
    """Send signals at a moment drawn so that early and late ones are likely."""
    pid = process.pid
    assert pid
    time.sleep(0.03 + chance.expovariate(25))
    for signum in chance.choice(KILLS):
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
            tally.counts[signal.Signals(signum).name] += 1
        time.sleep(chance.random() * 0.01)


def judge(seed: int, simulator: Simulator, directory: Path, tally: Tally) -> None:
    """Hold all CSVs and summaries against the record."""
    csvs, summaries = sorted(directory.glob("*.csv")), sorted(directory.glob("*.json"))
    reports = [Counter(row["examId"] for row in rows_of(path.read_bytes())) for path in csvs]
    rows = sum(reports, Counter[str]())
    windows = [window for path in summaries for window in json.loads(path.read_text())["lost"]]
    log = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
    rows.update(event["row"].split(",")[2] for event in log if event["event"] == "unwritten_row")

    # A server that repeats an answer to the next process cannot be seen through; within a run it is.
    repeats = any(call["fault"] == "repeat" for call in simulator.record)
    doubled = [exam for counted in (reports if repeats else [rows]) for exam, number in counted.items() if number > 1]
    expired = {exam for call in simulator.record for exam in call["expired"]}
    lost = [call for call in simulator.record if set(call["expired"]) - set(rows)]
    unnamed = [call for call in lost if not any(within(call["changed"], window) for window in windows)]
    partly = [call for call in lost if set(call["expired"]) & set(rows) and call["fault"] in WELL_SAID]
    invented = set(rows) - expired

    tally.counts.update(
        {
            "runs": 1,
            "calls": len(simulator.record),
            "exams expired": len(expired),
            "rows": sum(rows.values()),
            "answers lost, named": len(lost) - len(unnamed),
            "doubled": len(doubled),
            "missing": sum(len(set(call["expired"]) - set(rows)) for call in unnamed),
            "answers lost, not named": len(unnamed),
        }
    )
    tally.faults.update(call["fault"] for call in simulator.record)
    wrong = {
        "doubled": doubled,
        "invented": invented,
        "not named": unnamed,
        "partial left": list(directory.glob("*.partial")),
        "csv without summary": {path.stem for path in csvs} ^ {path.stem for path in summaries},
        "bug": [event for event in log if event.get("traceback")],
    }
    tally.counts["answers torn by a kill"] += len(partly)
    tally.broken += [f"seed {seed}: {what}: {found}"[:2000] for what, found in wrong.items() if found]


def within(changed: str, window: dict[str, Any]) -> bool:
    return bool(window["start"] <= changed.replace("+00:00", "Z") <= window["end"])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the first run; drawn where it is not given")
    options = parser.parse_args(arguments)
    first = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"{options.runs} runs from seed {first}; faults: {', '.join(RANDOM_FAULTS)}", flush=True)
    total = Tally()
    for seed in range(first, first + options.runs):
        total.merge(one_run(seed))
    for heading, numbers in (("", total.counts), ("fault ", total.faults), ("exit code ", total.exits)):
        for name, number in sorted(numbers.items()):
            print(f"{heading + name:<28} {number:>10,}")
    for line in total.broken:
        print(f"BROKEN {line}")
    return 1 if total.broken else 0


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["app.commands", "app.job", "requests"])

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
