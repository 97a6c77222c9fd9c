"""Tries hard to lose an exam: random scenarios, faults, kills and failing storage against the real job.

    python -m tests.tools.campaign --runs 1000 --seed 1

Each run draws a scenario from its own seed and starts the job in it again and again, each time disturbed in another
way, until nothing is left. The judge is the record of the embedded Proctor: every exam that it changed must be in
exactly one row (of all CSVs together, or of those that the log holds because a CSV could not be written), or have been
changed within a reported window; and no window may be reported without need. The job is forked from a process that has
done its imports; apart from that it is the real one.
"""

import argparse
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.tools.sabotage import loaded
from tests.tools.trial import CONTEXT, Trial
from tests.tools.verdict import Tally, Verdict

NO_COMPILER = (
    "There is no C compiler (cc or gcc) to build sabotage.c with: no job is killed at a chosen step of its output, no"
    " storage fails, and no clock is set."
)


def one_run(seed: int, sabotage: bool) -> Tally:
    """Play a trial and judge it."""
    with tempfile.TemporaryDirectory() as name:
        trial = Trial(seed, Path(name), sabotage)
        try:
            trial.play()
            return Verdict(trial).tally
        except Exception:
            return Tally(broken=[f"seed {seed}: {traceback.format_exc()}"])  # what was written cannot even be read


def campaign(seeds: Sequence[int], workers: int) -> Tally:
    """Play the trials of these seeds, some at once; prints what is broken as it is found."""
    total = Tally()
    with loaded() as sabotage, ProcessPoolExecutor(workers, mp_context=CONTEXT) as pool:
        if not sabotage:
            print(NO_COMPILER, flush=True)
        for tally in pool.map(partial(one_run, sabotage=sabotage), seeds):
            total.merge(tally)
            for line in tally.broken:
                print(f"BROKEN {line}", flush=True)
    return total


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the first run; drawn where it is not given")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once (default: one per processor)")
    options = parser.parse_args(arguments)
    first = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"{options.runs} runs from seed {first}", flush=True)
    total = campaign(range(first, first + options.runs), options.workers)
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
