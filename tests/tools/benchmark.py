"""Times the job beside simpler programs that do the same, against the same server process, in turn.

    python -m tests.tools.benchmark

`bare` is one session of requests, `floor` one connection of http.client, both durable after each batch; `naive` opens a
connection for each call and prints at the end. Each figure is the median of whole processes from start to end: the
time that passed, and processor time. A ratio is the median of those of the single rounds, with the least and the
greatest beside it.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.simulator import Scenario, Simulator
from tests.containers.engine import IMAGE, host_address
from tests.support import ROOT
from tests.tools.scenarios import certificate, trusted

JOB = ("-m", "app")
PROGRAMS = {"job": JOB, **{name: ("tests/tools/baselines.py", name) for name in ("bare", "floor", "naive")}}

# The process reports its own peak: the one that the system keeps for its parent begins with the parent's own.
REPORT_PEAK = (
    "import atexit, runpy, sys;"
    "atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read()));"
    "runpy.run_module('app', run_name='__main__')"
)


@dataclass(frozen=True)
class Case:
    """What is to be done, and how the CSV is taken."""

    exams: int
    latency: float = 0.0
    tls: bool = False
    pipe: bool = False
    gzip: bool = True

    def __str__(self) -> str:
        output, scheme = "pipe" if self.pipe else "file", "https" if self.tls else "http"
        kind = "" if self.gzip else ", uncompressed"
        return f"{self.exams:,} exam{'s' * (self.exams > 1)}, {self.latency * 1000:.0f} ms, {scheme}, {output}{kind}"


@dataclass(frozen=True)
class Usage:
    """What a process took, in seconds."""

    elapsed: float
    processor: float


CASES = [
    *(Case(100_000, tls=tls, pipe=pipe) for tls in (False, True) for pipe in (False, True)),
    *(Case(100_000, tls=tls, gzip=False) for tls in (False, True)),
    *(Case(2_000, latency=0.05, tls=tls) for tls in (False, True)),
    *(Case(1, tls=tls) for tls in (False, True)),
]


def run(case: Case, arguments: Sequence[str]) -> tuple[Usage, str]:
    """Run a program to its end; returns what it took and its stderr. Every exam must be in its CSV."""
    with (
        tempfile.TemporaryDirectory() as name,
        Simulator(
            Scenario(exams=case.exams, latency=case.latency, compresses=case.gzip),
            certificate=certificate(Path(name)) if case.tls else None,
        ) as simulator,
    ):
        environment = {**simulator.settings(), "PATH": os.environ["PATH"], "LOG_LEVEL": "WARNING"}
        if case.tls:
            environment["TLS_CA_FILE"] = trusted(Path(name), "ours")
        with tempfile.TemporaryFile() as csv, tempfile.TemporaryFile() as log:
            begin = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if case.pipe else csv,
                stderr=log,
            )
            lines = 0
            while process.stdout and (chunk := os.read(process.stdout.fileno(), 1 << 16)):
                lines += chunk.count(b"\n")
            _, status, used = os.wait4(process.pid, 0)
            usage = Usage(time.perf_counter() - begin, used.ru_utime + used.ru_stime)
            code = process.returncode = os.waitstatus_to_exitcode(status)
            csv.seek(0)
            lines += sum(1 for _ in csv)
            log.seek(0)
            stderr = log.read().decode()
    if code or lines != case.exams + 1:
        raise SystemExit(f"{' '.join(arguments)} ended with {code} and {lines} lines for {case}\n{stderr}")
    return usage, stderr


def compare(case: Case, rounds: int) -> None:
    """Print a line for each program: its medians, and their ratios to `bare`."""
    usages: dict[str, list[Usage]] = {name: [] for name in PROGRAMS}
    for number in range(rounds):
        programs = list(PROGRAMS.items())
        for name, arguments in programs[number % 4 :] + programs[: number % 4]:  # none is always the first
            usages[name].append(run(case, arguments)[0])
    print(f"\n{case}")
    for kind in "elapsed", "processor":
        seconds = {name: [getattr(usage, kind) for usage in taken] for name, taken in usages.items()}
        print(f"  {kind} time")
        for name, taken in seconds.items():
            print(f"    {name:<6}{statistics.median(taken):>9.3f} s   {_ratio(taken, seconds['bare'])} of bare")
        job = seconds["job"]
        print(f"    job {_ratio(job, seconds['floor'])} of floor, {_ratio(job, seconds['naive'])} of naive", flush=True)


def _ratio(some: list[float], others: list[float]) -> str:
    ratios = [one / other for one, other in zip(some, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def peak(exams: int) -> float:
    """The most memory that the job's process ever held, in MB (Linux)."""
    _, status = run(Case(exams), ("-c", REPORT_PEAK))
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def first_call(docker_run: Sequence[str], host: str, python: str) -> float:
    """The seconds from the start of the job's process to its first call, in a container or outside."""
    with Simulator(Scenario(exams=1), host=host) as simulator:
        assignments = [f"{name}={value}" for name, value in simulator.settings().items()]
        command = [*docker_run, *(part for one in assignments for part in ("-e", one)), IMAGE, "-c"]
        if not docker_run:
            command = ["env", "-i", f"PATH={os.environ['PATH']}", *assignments, "sh", "-c"]
        job = subprocess.run(
            [*command, f"date +%s.%N >&2; exec {python} -m app"], cwd=ROOT, capture_output=True, check=True
        )
        began = float(job.stderr.split()[0])
        return datetime.fromisoformat(simulator.record[0]["start"]).timestamp() - began


def compare_containers(rounds: int) -> None:
    """Print how long the job's start takes in the image `force-submit-proctor`, and here."""
    docker_run = ("docker", "run", "--rm", "--entrypoint=sh")
    with host_address() as host:
        pairs = [(first_call(docker_run, host, "python"), first_call((), host, sys.executable)) for _ in range(rounds)]
    inside, outside = zip(*pairs, strict=True)
    ratios = [one / other for one, other in pairs]
    print("\nfrom start to first call")
    print(f"  in the container {statistics.median(inside):.3f} s, outside {statistics.median(outside):.3f} s")
    print(f"  {statistics.median(ratios):.2f} of outside   ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.benchmark", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="only cases whose name holds this, such as '1 exam' or 'memory'")
    parser.add_argument("--containers", action="store_true", help="only the start in a container; needs the image")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {options.rounds} rounds")
    if options.containers:
        return compare_containers(options.rounds)
    for case in CASES:
        if options.only in str(case):
            compare(case, options.rounds)
    if options.only in "memory":
        print("\nmemory")
        for exams in 1_000, 1_000_000:
            print(f"  {exams:>9,} exams {peak(exams):>7.1f} MB at most", flush=True)


if __name__ == "__main__":
    main()
