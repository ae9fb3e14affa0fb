"""Memory of students of 1, 3 and 8 billion parameters on each card, by arithmetic: see distill.models.footprint.

    python benchmarks/student_memory.py                the table of docs/many_cards.md
    python benchmarks/student_memory.py --parts        what each is made of
    python benchmarks/student_memory.py --tokens 4096  of so many tokens that a card computes at a time

It loads nothing, and needs no card. The shapes are those of Llama 3.2 1B and 3B, and of Llama 3.1 8B; an adapter has
rank 16 on all linear maps, over a base in bfloat16. A student that several cards train is shared out over them.
"""

import argparse
from dataclasses import fields

from distill.models.footprint import LEFT, Footprint, Plan, Shape, forecast

STUDENTS = {
    "1B": Shape(16, 2048, 8192, 32, 512, 2048, 128_256, tied=True),
    "3B": Shape(28, 3072, 8192, 24, 1024, 3072, 128_256, tied=True),
    "8B": Shape(32, 4096, 14_336, 32, 1024, 4096, 128_256, tied=False),
}
CARDS = (24, 40, 80)  # GB
PROCESSES = (1, 2, 4, 8)
RANK = 16
GB = 1e9


def list_plans(tokens: int, count: int) -> dict[tuple[str, str], Plan]:
    """All weights and an adapter, with layers computed once and twice, over so many cards."""
    return {
        ("LoRA" if rank else "all", "twice" if twice else "once"): Plan(tokens, rank, count, count > 1, twice)
        for rank in (0, RANK)
        for twice in (False, True)
    }


def describe(found: Footprint) -> str:
    """Say what is needed of a card, and the smallest card that has it."""
    fitting = [card for card in CARDS if found.total <= LEFT * card * GB]
    return f"{found.total / GB:.1f} ({fitting[0] if fitting else 'none'})"


def print_totals(tokens: int) -> None:
    """Print a line a student and way to train it, and a column a number of cards."""
    print(
        "| student | trained | layers |",
        " | ".join(f"{count} cards" if count > 1 else "1 card" for count in PROCESSES),
        "|",
    )
    print("|---|---|---|" + "---|" * len(PROCESSES))
    for name, shape in STUDENTS.items():
        for ways in list_plans(tokens, 1):
            plans = [list_plans(tokens, count)[ways] for count in PROCESSES]
            print("|", " | ".join([name, *ways, *(describe(forecast(shape, plan)) for plan in plans)]), "|")


def print_parts(tokens: int) -> None:
    """Print a line for each of those, with what it is made of."""
    parts = [field.name for field in fields(Footprint)]
    print("| student | trained | layers | cards |", " | ".join(parts), "| all |")
    print("|" + "---|" * (5 + len(parts)))
    for name, shape in STUDENTS.items():
        for count in PROCESSES:
            for ways, plan in list_plans(tokens, count).items():
                found = forecast(shape, plan)
                sizes = [getattr(found, part) for part in parts]
                cells = [name, *ways, str(count), *(f"{size / GB:.1f}" for size in (*sizes, found.total))]
                print("|", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="that a card computes at a time")
    parser.add_argument("--parts", action="store_true", help="what each is made of")
    arguments = parser.parse_args()
    print(
        f"GB a card, {arguments.tokens:,} tokens at a time; in brackets the smallest card of {CARDS} GB that has them"
    )
    (print_parts if arguments.parts else print_totals)(arguments.tokens)


if __name__ == "__main__":
    main()
