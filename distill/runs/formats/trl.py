"""Rows as TRL's SFTTrainer takes them: `prompt` and `completion`, texts or lists of messages, a JSON object a line.

Source: https://huggingface.co/docs/trl/dataset_formats#prompt-completion. TRL puts the end token behind a text itself.
"""

import json
from pathlib import Path

from distill.runs.formats.rows import AnsweredRows


def write_trl(rows: AnsweredRows, folder: Path) -> str:
    """Write <split>.jsonl for each split; say what was written."""
    counts = []
    for split in rows.splits():
        count = 0
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for each in rows.read(split):
                rendered = rows.template.render(each.example, rows.question)
                row: dict[str, object] = {"prompt": rendered.text, "completion": each.completion}
                if rendered.messages is not None:
                    answer = {"role": "assistant", "content": each.completion}
                    row = {"prompt": [turn._asdict() for turn in rendered.messages], "completion": [answer]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        counts.append(f"{split}.jsonl {count:,}")
    return f"rows: {', '.join(counts)}; read by datasets.load_dataset('json', data_files=...) and trl.SFTTrainer"
