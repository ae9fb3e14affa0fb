"""Which request is with which replica, and what becomes of it where a replica dies. Pure: it starts and sends nothing.

A seat is the place of one replica; where that dies, another one takes the seat. A replica that dies again and again
before it has answered anything leaves its seat empty. A request that was with two replicas when they died is asked
again at the end, alone: where the replica dies of it then, it fails, and takes no other request along.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from harvest.teachers.base import Request

SUSPECTED_AFTER = 2  # deaths of a replica that had answered others, in company
BARREN_LIMIT = 3  # deaths in a row before an answer, after which a seat stays empty


@dataclass(slots=True, eq=False)
class Seat:
    """The place of one replica: what it was asked, and how it is going.

    `room` is how many requests its teacher takes more in the stream number `stream`; `starving` whether it waits for
    some, and gathers what it has. `proven` is whether the replica that sits here has answered anything, `barren` how
    many died here in a row without that, `rows` how many all of them have answered; `silence` is how many looks have
    found that it has requests and said nothing since the look before. Where it `is_empty`, none sits here any more.
    """

    number: int
    asked: dict[str, Request] = field(default_factory=dict)
    room: int = 0
    stream: int = 0
    starving: bool = False
    proven: bool = False
    barren: int = 0
    rows: int = 0
    silence: int = 0
    is_empty: bool = False

    def take_room(self, stream: int, count: int, starving: bool) -> None:
        """Note what the replica takes; what it said of a stream that was ended since is old."""
        if stream == self.stream:
            self.room += count
            self.starving = starving

    @property
    def is_on_trial(self) -> bool:
        """Whether the last replica here died before its first answer, and this one has not answered yet."""
        return self.barren > 0 and not self.proven

    def ask(self, requests: Sequence[Request]) -> None:
        """Note that the replica is asked these."""
        self.asked |= {request.key: request for request in requests}
        self.room = max(0, self.room - len(requests))
        self.starving = self.starving and not requests

    def end_stream(self) -> None:
        """Note that its stream is ended: it takes more when it says so of the next one."""
        self.stream += 1
        self.room, self.starving = 0, False

    def restart(self) -> None:
        """Note that another replica sits here, which has said nothing yet."""
        self.asked, self.room, self.stream, self.starving, self.proven = {}, 0, 0, False, False
        self.silence = 0


class Requests:
    """The requests that wait to be asked again, and what their replicas' deaths say of them."""

    def __init__(self) -> None:
        self.returned: deque[Request] = deque()
        self.suspects: deque[Request] = deque()
        self._deaths: dict[str, int] = {}

    def take_deaths(self, seat: Seat, *, may_stay: bool = True) -> list[Request]:
        """Take back what a dead replica was asked; give the requests that are to blame, of which it died alone.

        `may_stay` is whether one that died without an answer may be replaced: else its seat is empty from now on.
        """
        unanswered = list(seat.asked.values())
        blamed: list[Request] = []
        counts = seat.proven or self._is_suspect(unanswered)
        for request in unanswered:
            if counts:
                self._deaths[request.key] = self._deaths.get(request.key, 0) + 1
            deaths = self._deaths.get(request.key, 0)
            if deaths > SUSPECTED_AFTER and len(unanswered) == 1:
                blamed.append(request)
            else:
                (self.suspects if deaths >= SUSPECTED_AFTER else self.returned).append(request)
        if not blamed:
            seat.barren = 0 if seat.proven else seat.barren + 1
        seat.is_empty = not blamed and not seat.proven and (seat.barren >= BARREN_LIMIT or not may_stay)
        seat.restart()
        return blamed

    def _is_suspect(self, requests: list[Request]) -> bool:
        return len(requests) == 1 and self._deaths.get(requests[0].key, 0) >= SUSPECTED_AFTER

    def answer(self, seat: Seat, key: str) -> Request | None:
        """Take the request of `key` as answered by the replica of `seat`; None where it was not asked that."""
        request = seat.asked.pop(key, None)
        if request is not None:
            seat.proven, seat.barren = True, 0
            seat.rows += 1
            if self._deaths:
                self._deaths.pop(key, None)
        return request


def limit_share(seat: Seat, waiting: int | None, seats: list[Seat]) -> int:
    """How many more requests `seat` may be asked: no more than its share of all that are left, `waiting` and in flight.

    So no teacher that gathers many before it answers takes those of the others, at the end. `waiting` None: unknown.
    """
    if seat.is_on_trial:  # one request, which may not be what the last one died of
        return 0 if seat.asked else min(1, seat.room)
    if waiting is None:
        return seat.room
    living = [one for one in seats if not one.is_empty]
    left = waiting + sum(len(one.asked) for one in living)
    return max(0, min(seat.room, -(-left // len(living)) - len(seat.asked)))
