"""Tries hard to lose an exam: random scenarios, faults, kills and failing storage against the real job.

    python -m tests.tools.campaign --runs 1000 --seed 1

Each run draws a scenario from its own seed and starts the job in it again and again, each time disturbed in another
way, until nothing is left. The judge is the record of the embedded Proctor: every exam that it changed must be in
exactly one row (of all CSVs together, or of those that the log holds because a CSV could not be written), or have been
changed within a reported window; and no window may be reported without need. Then what was lost is recovered as the
README says, from the log and from a real MariaDB with what the exam service writes: now every exam must be in exactly
one row of a CSV. The job is forked from a process that has done its imports; apart from that it is the real one.
"""

import argparse
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from tests.recover.database import Database, server
from tests.tools.recovery import NO_DATABASE, Recovery, database_is_here
from tests.tools.sabotage import loaded
from tests.tools.trial import CONTEXT, Trial
from tests.tools.verdict import Tally, Verdict

NO_COMPILER = (
    "There is no C compiler (cc or gcc) to build sabotage.c with: no job is killed at a chosen step of its output, no"
    " storage fails, and no clock is set."
)


_databases: list[Database] = []
"""That of this process, if it has one."""


def _take_database(databases: "SimpleQueue[Database | None]") -> None:
    if database := databases.get():
        _databases.append(database)


def one_run(seed: int, sabotage: bool) -> Tally:
    """Play a trial and judge it; then recover what it lost, and judge that."""
    with tempfile.TemporaryDirectory() as volume, tempfile.TemporaryDirectory() as place:
        trial = Trial(seed, Path(volume), sabotage)
        try:
            trial.play()
            tally = Verdict(trial).tally
            if _databases and trial.output == "volume":
                tally.merge(Recovery(trial, _databases[0], Path(place)).tally)
            return tally
        except Exception:
            return Tally(broken=[f"seed {seed}: {traceback.format_exc()}"])  # what was written cannot even be read


def campaign(seeds: Sequence[int], databases: Sequence[Database | None]) -> Tally:
    """Play the trials of these seeds, as many at once as there are databases; prints what is broken as it is found.

    Where a database is None, nothing is recovered.
    """
    total = Tally()
    queue = CONTEXT.SimpleQueue()
    for database in databases:
        queue.put(database)
    pool = ProcessPoolExecutor(len(databases), CONTEXT, _take_database, (queue,))
    with loaded() as sabotage, pool:
        if not sabotage:
            print(NO_COMPILER, flush=True)
        for tally in pool.map(partial(one_run, sabotage=sabotage), seeds):
            total.merge(tally)
            for line in tally.broken:
                print(f"BROKEN {line}", flush=True)
    return total


@contextmanager
def servers(number: int) -> Iterator[list[Database | None]]:
    """So many databases; None for each where there is no MariaDB, which is printed."""
    with ExitStack() as running:
        if database_is_here():
            yield [running.enter_context(server()) for _ in range(number)]
        else:
            print(NO_DATABASE, flush=True)
            yield [None] * number


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the first run; drawn where it is not given")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once (default: one per processor)")
    options = parser.parse_args(arguments)
    first = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"{options.runs} runs from seed {first}", flush=True)
    with servers(options.workers) as databases:
        total = campaign(range(first, first + options.runs), databases)
    for heading, numbers in (
        ("", total.counts),
        ("false alarm, ", total.false_alarms),
        ("fault: ", total.faults),
        ("disturbance: ", total.disturbances),
        ("sabotage: ", total.steps),
        ("exit code: ", total.exit_codes),
    ):
        for name, number in sorted(numbers.items()):
            print(f"{heading + name:<70} {number:>12,}")
    return 1 if total.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
