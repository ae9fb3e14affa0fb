"""The process that renders pages for another one: `python -m harvest.rendering.worker FD`, FD a socket to it.

It ends when the socket does, so also when its parent is killed. An interrupt at the keyboard is its parent's to act on:
what is under way arrives.
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from harvest.rendering.layout import Layout
from harvest.rendering.page import Page, render
from shared.errors import DataError


def main() -> None:
    """Answer each (texts, layout) that comes with the pages of each text, until the socket ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):
        while True:
            texts, layout = connection.recv()
            connection.send(render_texts(texts, layout))


def render_texts(texts: Sequence[str], layout: Layout) -> list[list[Page] | DataError]:
    """Render each of `texts`: its pages, or the error that says why it has none."""
    rendered: list[list[Page] | DataError] = []
    for text in texts:
        try:
            rendered.append(render(text, layout))
        except DataError as error:
            rendered.append(error)
    return rendered


if __name__ == "__main__":
    main()
