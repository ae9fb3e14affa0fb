from collections import Counter

from shared.causes import COUNTED_CAUSES, count_causes


def test_a_frequent_cause_survives_any_number_of_others_that_came_first() -> None:
    counts = Counter[str]()
    for number in range(3 * COUNTED_CAUSES):
        count_causes(counts, [f"of row {number}"])
        if number > COUNTED_CAUSES and number % 10 == 0:
            count_causes(counts, ["frequent"])
    assert counts.most_common(1) == [("frequent", 2 * COUNTED_CAUSES // 10 - 1)]
    assert len(counts) <= COUNTED_CAUSES
