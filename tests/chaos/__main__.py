"""`make chaos`: disturb a small grid again and again, and see that nothing is lost, repeated or changed."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.disturbances import DISTURBANCES, Disturbance, Unexpected, recover, write_grid
from tests.orchestrator.runs import Results, Workplace


def main() -> int:
    """Play the rounds; 0 when every one of them ended as an undisturbed run."""
    names = {disturbance.__name__: disturbance for disturbance in DISTURBANCES}
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="how many (default: 21, each disturbance three times)")
    parser.add_argument("--seed", type=int, default=random.randrange(1000), help="what the moments depend on")
    parser.add_argument("--only", choices=names, action="append", help="only this disturbance; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the last round")
    options = parser.parse_args()
    kinds = [names[name] for name in options.only] if options.only else DISTURBANCES

    # A short path: Ray's sockets lie below it.
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    began, failed = time.monotonic(), []
    try:
        place = Workplace(folder)
        grid = write_grid(place)
        print(f"seed {options.seed}, in {folder}: one quiet run, then {options.rounds} rounds", flush=True)
        code, output = place.run("run", grid, "--no-dashboard")
        if code:
            print(output)
            return 1
        expected = place.results()
        for number in range(options.rounds):
            problems, line = play(place, grid, expected, kinds, options.seed, number)
            print(f"{number + 1:3}/{options.rounds}  {'FAILED' if problems else 'same'}  {line}", flush=True)
            for problem in problems:
                print(f"       {problem}", flush=True)
            if problems:
                failed.append(number + 1)
                if options.keep:
                    break
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    verdict = (
        f"rounds {', '.join(map(str, failed))} FAILED"
        if failed
        else "every trial done, every epoch once, every bit the same"
    )
    print(f"{options.rounds} rounds with seed {options.seed} in {minutes:.0f} min: {verdict}")
    return 1 if failed else 0


def play(
    place: Workplace, grid: Path, expected: Results, kinds: list[Disturbance], seed: int, number: int
) -> tuple[list[str], str]:
    """One round: disturb a new database's runs once or twice, run again, compare; the problems and what was done."""
    chance = random.Random(f"{seed}/{number}")
    place.clear()
    first = kinds[number % len(kinds)]
    chosen = [first, *chance.choices(kinds, k=chance.choice([0, 0, 1]))]
    done: list[str] = []
    problems: list[str] = []
    for disturbance in chosen:
        if place.finished():
            break
        try:
            done.append(disturbance(place, grid, chance))
        except (Unexpected, AssertionError) as problem:
            done.append(disturbance.__name__)
            problems.append(f"{disturbance.__name__}: {problem}")
    return problems + recover(place, grid, expected), ", then ".join(done)


if __name__ == "__main__":
    sys.exit(main())
