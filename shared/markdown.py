"""Text of others in Markdown, as cards have it: names, labels, templates; and no path of the machine they were made on.

Source: CommonMark 0.31, section 2.4 (a backslash before any ASCII punctuation stands for it).
"""

import os
import re
from pathlib import Path

from shared.printable import make_printable

_SPECIAL = re.compile(r"([\\`*\[\]<>#|~&$]|(?<!\w)_|_(?!\w))")
_END = r"(?![\w@-]|\.\w)"  # of a folder's name: a full stop may end the sentence
_PATH = re.compile(r"(?<![\w:/.@])(?:~|/|[A-Za-z]:\\)[^\s,;:'\"`()<>|]*[\\/][^\s,;:'\"`()<>|]*")


def put_on_line(text: str) -> str:
    """`text` on one line: one of ---, whatever quotes it, would end the YAML that a card begins with."""
    return " ".join(make_printable(text).split())


def escape_markdown(text: str) -> str:
    """`text` on one line, nothing of which is Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", put_on_line(text))


def escape_code(text: str) -> str:
    """`text` on one line as code between backticks, whatever it holds, also in a table's cell."""
    plain = put_on_line(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    fence, room = "`" * (longest + 1), " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{fence}{room}{plain}{room}{fence}"


def hide_place(text: str) -> str:
    """`text` with each absolute path in it, and with this machine's home, reduced to the file's or folder's name."""
    home = os.path.expanduser("~").rstrip("/")
    if home:
        text = re.sub(rf"(?<![\w.@-]){re.escape(home)}{_END}", "~", text)
    return _PATH.sub(lambda match: Path(match[0].replace("\\", "/")).name, text)
