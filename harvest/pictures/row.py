"""All pictures of a row: what the key of its request says of them, and what its teacher is sent."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

from harvest.pictures.look import Look, look, name_picture
from harvest.pictures.prepare import PREPARING, Shown, prepare
from shared.console import say
from shared.cores import count_cores
from shared.errors import DataError
from shared.example import Example

Item = TypeVar("Item")
Prepared: TypeAlias = tuple[Shown, ...] | DataError  # a row's pictures, or why one of them cannot be shown


def look_at_row(example: Example) -> tuple[Look, ...]:
    """Look at each of a row's pictures. Raises DataError, naming the first that cannot be shown."""
    return tuple(map(look, example.pictures or ()))


def describe_shown(example: Example) -> Mapping[str, Any]:
    """The entry of a request's content that says which pictures it shows; nothing of a row that has none."""
    return {"pictures": [seen.sha256 for seen in look_at_row(example)]} if example.pictures else {}


def describe_preparing(shows: bool, longest_side: int | None = None) -> Mapping[str, Any]:
    """The entry of a recipe that says how pictures are prepared; nothing where none are shown."""
    if not shows:
        return {}
    return {"pictures": {"preparing": PREPARING} | ({} if longest_side is None else {"longest_side": longest_side})}


def prepare_row(example: Example, longest_side: int | None = None) -> tuple[Shown, ...]:
    """Prepare each of a row's pictures. Raises DataError, naming the first that cannot be shown."""
    shown = []
    for picture in example.pictures or ():
        one = prepare(picture, longest_side)
        _said.say_first(name_picture(picture), one.changes)
        shown.append(one)
    return tuple(shown)


async def prepare_ahead(
    items: AsyncIterator[Item], find_example: Callable[[Item], Example], longest_side: int | None = None
) -> AsyncGenerator[tuple[Item, Prepared], None]:
    """The items in their order, each with its row's pictures; those of the next ones are prepared meanwhile."""
    loop = asyncio.get_running_loop()
    waiting: deque[tuple[Item, asyncio.Future[Prepared]]] = deque()
    threads = max(1, min(8, count_cores() - 1))
    pool = ThreadPoolExecutor(threads, "picture")
    try:
        async for item in items:
            work = partial(_try_prepare, find_example(item), longest_side)
            waiting.append((item, loop.run_in_executor(pool, work)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, await future
        while waiting:
            first, future = waiting.popleft()
            yield first, await future
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _try_prepare(example: Example, longest_side: int | None) -> Prepared:
    try:
        return prepare_row(example, longest_side)
    except DataError as error:
        return error


class _SaidChanges:
    """Says of the first picture that is converted in some way that it is, and of no other."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say_first(self, name: str, changes: Sequence[str]) -> None:
        """Say what is done to a picture, as far as it was not done to another before."""
        for change in changes:
            if change not in self._said:
                self._said.add(change)
                say(f"{name}: {change}; so of every such picture")


_said = _SaidChanges()
