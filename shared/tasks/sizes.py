"""How many rows the known tasks have, by split, as far as the data sets' cards and authors say it.

Rows with a hidden label count. What is loaded is counted by load_task; these numbers are for choosing a task.
"""

from collections.abc import Mapping

KNOWN_ROWS: Mapping[str, Mapping[str, int]] = {
    "cola": {"train": 8_551, "validation": 1_043, "test": 1_063},
    "stsb": {"train": 5_749, "validation": 1_500, "test": 1_379},
    "mrpc": {"train": 3_668, "validation": 408, "test": 1_725},
    "rte": {"train": 2_490, "validation": 277, "test": 3_000},
    "sst2": {"train": 67_349, "validation": 872, "test": 1_821},
    "mnli": {
        "train": 392_702,
        "validation": 9_815,
        "validation_mismatched": 9_832,
        "test": 9_796,
        "test_mismatched": 9_847,
    },
    "qnli": {"train": 104_743, "validation": 5_463, "test": 5_463},
    "qqp": {"train": 363_846, "validation": 40_430, "test": 390_965},
    "cb": {"train": 250, "validation": 56, "test": 250},
    "copa": {"train": 400, "validation": 100, "test": 500},
    "copa_choice": {"train": 400, "validation": 100, "test": 500},
    "boolq": {"train": 9_427, "validation": 3_270, "test": 3_245},
    "wic": {"train": 5_428, "validation": 638, "test": 1_400},
    "hateful_memes": {"train": 8_500, "validation": 500, "test": 1_000},
    "rotten_tomatoes": {"train": 8_530, "validation": 1_066, "test": 1_066},
    "rotten_tomatoes_text": {"train": 8_530, "validation": 1_066, "test": 1_066},
    "hellaswag": {"train": 39_905, "validation": 10_042},
    "winogrande": {"train": 40_398, "validation": 1_267},
    "arc_easy": {"train": 2_251, "validation": 570, "test": 2_376},
    "arc_challenge": {"train": 1_119, "validation": 299, "test": 1_172},
    "openbookqa": {"train": 4_957, "validation": 500, "test": 500},
    "aqua": {"train": 97_467, "validation": 254, "test": 254},
    "multiarith": {"train": 420, "test": 180},
    "singleeq": {"test": 508},
    "gsm8k": {"train": 7_473, "test": 1_319},
    "commonsense_170k": {"train": 170_420},
    "commonsense_8k": {"train": 8_000},
    "dolly": {"validation": 1_000, "test": 500},
    "self_inst": {"test": 252},
    "vicuna": {"test": 80},
    "uni": {"test": 2_000},
}
