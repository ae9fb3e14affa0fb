"""How often `distill compare` says "helps" of simulated comparisons whose truth is known.

    python benchmarks/verdict_level.py [--repeats 1000]

Each comparison is drawn anew: 1,300 rows, plain fine-tuning, controls, perhaps a baseline, and a teacher. In the first
table the teacher equals the rival that is hardest to beat, so that a "helps" is false; it may come in 2.5 of 100. In
the second it lies three standard errors above that rival. The third has what no test of a few seeds can see. Prints
shares of comparisons by their number of seeds, with the standard error of such a share.
"""

import argparse
import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.distill.compare.simulated_comparison import FALSE, PLANTED, UNSEEN, Scenario

SEEDS = (3, 4, 5, 10)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="comparisons a scenario and number of seeds")
    repeats = parser.parse_args().repeats
    print(
        f"{repeats:,} comparisons each; a share near .025 has a standard error of {sqrt(0.025 * 0.975 / repeats):.4f}"
    )
    print_table("false helps", FALSE, repeats)
    print_table("planted effects of three standard errors that are found", PLANTED, repeats)
    print_table("false helps, failures unseen", (UNSEEN,), repeats)


def print_table(title: str, scenarios: Sequence[Scenario], repeats: int) -> None:
    """Print one table as Markdown."""
    print(f"\n| {title} | {' | '.join(f'{seeds} seeds' for seeds in SEEDS)} |\n|---|{'---|' * len(SEEDS)}")
    for scenario in scenarios:
        shares = [scenario.count(seeds, repeats)["helps"] / repeats for seeds in SEEDS]
        print(f"| {scenario.name} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
