"""What ten thousand, a million and a hundred million rows take: the table of docs/scale.md, by arithmetic.

    python benchmarks/scale.py [--gpu-dollars 2.5] [--utilisation .4]

Nothing is run and nothing is measured here: a line is a product of the constants below, and each constant says where it
comes from: a figure that another script of this folder printed, a published one, or an assumption. Change one, and the
table follows. Prints Markdown.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

ROWS = (10**4, 10**6, 10**8)

# A task like MNLI, of two short texts a row.
TEXT_TOKENS = 40  # assumption: both texts, in a student's tokens
PROMPT_TOKENS = 100  # assumption: the texts, the question and its labels
PICTURE_TOKENS = 576  # LLaVA-1.5: 24 x 24 patches of a picture of 336 x 336
# An endpoint.
DOLLARS_IN, DOLLARS_OUT = 0.15, 0.60  # gpt-4o-mini, dollars a million tokens, as genai-prices has them
BATCH = 0.5  # of that, as the providers publish it for their batch routes
REQUESTS_A_MINUTE = 10_000  # assumption: the account's limit
# A GPU.
OPERATIONS = 989e12  # a second: dense bfloat16 of an H100 SXM, as NVIDIA's data sheet has it
TEACHER_WEIGHTS = 7.06e9  # LLaVA-1.5-7B
STUDENT_WEIGHTS = 22.7e6  # MiniLM-L6, the default student
WRITER_WEIGHTS = 1.24e9  # LLaMA-3.2-1B
WRITER_TOKENS = 200  # assumption: prompt and reply of a row that a student learns to write
EPOCHS = 4  # the default of distill run
# A bucket.
BUCKET_DOLLARS = 0.023  # a gigabyte and a month of S3's standard class, as AWS publishes it
# What this project measured, and the script that printed it.
KEPT_A_SECOND = 2_170  # benchmarks/endpoint.py, 256 requests in flight, one process
STREAMED_A_SECOND = 15_782  # benchmarks/stream.py: rows read and tokenised, one process
PLANNED_A_SECOND = 50_000  # benchmarks/plan.py: of 10 million rows nothing is kept, 20 microseconds of a core each
ROW_BYTES = 347  # benchmarks/plan.py: a row with the scores of three labels and its raw reply, on the disk
VECTOR_BYTES = 2 * 4096  # LLaVA's hidden state in float16, which hardly compresses


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: what one row takes, in what `show` writes out."""

    what: str
    of_a_row: float
    show: Callable[[float], str]
    arithmetic: str


def list_lines(gpu_dollars: float, utilisation: float) -> list[Line]:
    """The table's lines in the order of the work. A GPU reaches `utilisation` of its operations."""
    reached = OPERATIONS * utilisation
    dollars = (PROMPT_TOKENS * DOLLARS_IN + DOLLARS_OUT) / 1e6
    asked = 2 * TEACHER_WEIGHTS * (PICTURE_TOKENS + PROMPT_TOKENS) / reached
    student = 6 * STUDENT_WEIGHTS * TEXT_TOKENS * EPOCHS / reached
    writer = 6 * WRITER_WEIGHTS * WRITER_TOKENS * EPOCHS / reached
    per_second = gpu_dollars / 3600
    month = BUCKET_DOLLARS / 1e9
    pass_ = f"{STREAMED_A_SECOND:,} rows a second and pass (measured), {EPOCHS} passes"
    return [
        Line(
            "`harvest plan`",
            1 / PLANNED_A_SECOND,
            show_time,
            f"{PLANNED_A_SECOND:,} rows a second and core (measured)",
        ),
        Line(
            "an endpoint, in text",
            dollars,
            show_dollars,
            f"{PROMPT_TOKENS} tokens at ${DOLLARS_IN:.2f} and 1 at ${DOLLARS_OUT:.2f} a million",
        ),
        Line("the same by `--batch`", dollars * BATCH, show_dollars, "half of it"),
        Line("its limit of requests", 60 / REQUESTS_A_MINUTE, show_time, f"{REQUESTS_A_MINUTE:,} a minute (assumed)"),
        Line("our process at no limit", 1 / KEPT_A_SECOND, show_time, f"{KEPT_A_SECOND:,} rows a second (measured)"),
        Line(
            "LLaVA-1.5-7B, GPU time",
            asked,
            show_time,
            f"2 x {TEACHER_WEIGHTS / 1e9:g}e9 operations a token, {PICTURE_TOKENS + PROMPT_TOKENS} tokens",
        ),
        Line("the same, dollars", asked * per_second, show_dollars, f"${gpu_dollars:.2f} a GPU hour"),
        Line("rows with label scores", ROW_BYTES, show_bytes, f"{ROW_BYTES} bytes a row (measured)"),
        Line("their vectors too", VECTOR_BYTES, show_bytes, f"{VECTOR_BYTES // 2:,} numbers of 2 bytes"),
        Line("both in a bucket, a month", (ROW_BYTES + VECTOR_BYTES) * month, show_dollars, f"${BUCKET_DOLLARS} a GB"),
        Line("reading for a student", EPOCHS / STREAMED_A_SECOND, show_time, pass_),
        Line(
            "MiniLM-L6 as student, GPU time",
            student,
            show_time,
            f"6 x {STUDENT_WEIGHTS / 1e6:g}e6 operations a token, {TEXT_TOKENS} tokens, {EPOCHS} epochs",
        ),
        Line(
            "LLaMA-3.2-1B that writes, GPU time",
            writer,
            show_time,
            f"6 x {WRITER_WEIGHTS / 1e9:g}e9 operations a token, {WRITER_TOKENS} tokens, {EPOCHS} epochs",
        ),
    ]


def show_time(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{_round(seconds / size)} {unit}"
    return f"{_round(seconds)} s"


def show_bytes(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{_round(count / size)} {unit}"
    return f"{_round(count / 1e3)} kB"


def show_dollars(amount: float) -> str:
    """Dollars and cents; below a dollar, two digits that matter."""
    return f"${amount:.2f}" if 1 <= amount < 10 else f"${_round(amount)}"


def _round(number: float) -> str:
    """Two digits that matter, and all of what stands before the point."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def make_table(gpu_dollars: float = 2.5, utilisation: float = 0.4) -> str:
    """The table in Markdown."""
    titles = ["what", *(f"{rows:,} rows" for rows in ROWS), "a row's arithmetic"]
    rows = [
        [line.what, *(line.show(line.of_a_row * count) for count in ROWS), line.arithmetic]
        for line in list_lines(gpu_dollars, utilisation)
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu-dollars", type=float, default=2.5, help="dollars a GPU hour")
    parser.add_argument("--utilisation", type=float, default=0.4, help="what is reached of the GPU's operations")
    options = parser.parse_args()
    print(make_table(options.gpu_dollars, options.utilisation))
