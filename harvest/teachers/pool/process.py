"""A replica in a process of its own: `python -m harvest.teachers.pool.process FD`, FD a socket to `harvest`.

It leads a session: an interrupt at the keyboard is the pool's to act on. When the socket ends before the pool has said
so, because `harvest` was killed, say, the process ends at once with all that it has started.
"""

import asyncio
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread

import uvloop

from harvest.teachers.pool.messages import BEAT_SECONDS, Alive, Close, FromReplica, Means, Settings
from harvest.teachers.pool.replica import Replica


def main() -> None:
    """Serve the socket until the pool closes the replica."""
    connection = Connection(int(sys.argv[1]))
    settings, means = connection.recv()
    uvloop.run(_serve(connection, settings, means))


async def _serve(connection: Connection, settings: Settings, means: Means) -> None:
    outbox: SimpleQueue[FromReplica | None] = SimpleQueue()
    replica = Replica(settings, means, outbox.put)
    sender = Thread(target=_send, args=(connection, outbox))
    sender.start()
    Thread(target=_receive, args=(connection, replica, asyncio.get_running_loop()), daemon=True).start()
    ended = Event()
    Thread(target=_beat, args=(outbox, ended), daemon=True).start()
    try:
        await replica.serve()
    finally:
        ended.set()
        outbox.put(None)
        sender.join()


def _beat(outbox: "SimpleQueue[FromReplica | None]", ended: Event) -> None:
    """Say now and then that the process lives, whatever its event loop and its model are at."""
    while not ended.wait(BEAT_SECONDS):
        outbox.put(Alive())


def _send(connection: Connection, outbox: "SimpleQueue[FromReplica | None]") -> None:
    """Send what comes until None does. What cannot be sent ends the process: the pool would wait for it."""
    while (message := outbox.get()) is not None:
        try:
            connection.send(message)
        except OSError:
            return  # nobody is there any more: what receives ends the process
        except Exception:  # what cannot be pickled
            traceback.print_exc()
            os._exit(1)


def _receive(connection: Connection, replica: Replica, loop: asyncio.AbstractEventLoop) -> None:
    """Take messages until the pool closes the replica; end everything where the socket ends before."""
    try:
        while not isinstance(message := connection.recv(), Close):
            loop.call_soon_threadsafe(replica.take, message)
        loop.call_soon_threadsafe(replica.close)
        connection.recv()
    except (EOFError, OSError, RuntimeError):
        os.killpg(0, signal.SIGKILL)  # this process leads a group of its own


if __name__ == "__main__":
    main()
