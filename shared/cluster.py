"""A Ray cluster that works for a command: what a user says of it, and how the command joins it.

Ray itself is imported inside the functions that need it. Documentation: https://docs.ray.io/en/latest/ray-core/
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite, nan
from pathlib import Path

from shared.errors import ClusterError, UsageError
from shared.suggestions import suggest

RAY = "ray"
RESOURCES = ("cpus", "gpus")
REACHED_SECONDS = 10.0
_HEAD_LOOKS = 3
_ADDRESS = "RAY_ADDRESS"
_STATISTICS = "RAY_USAGE_STATS_ENABLED"  # Ray sends its makers none, unless the user's own environment says so


def parse_resources(text: str) -> dict[str, float]:
    """Read `gpus=1,cpus=2` as amounts by name. Raises ValueError that says what to give."""
    amounts: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in RESOURCES:
            raise ValueError(suggest(name, RESOURCES, there="there can be"))
        try:
            amounts[name] = float(number)
        except ValueError:
            amounts[name] = nan
        if not isfinite(amounts[name]):
            raise ValueError(f"give a number, {name}=1")
    return amounts


def show_resources(amounts: Mapping[str, float]) -> str:
    """Write amounts as `parse_resources` reads them."""
    return ",".join(f"{name}={amount:g}" for name, amount in amounts.items())


def check_resources(flag: str, amounts: Mapping[str, float]) -> None:
    """Raise UsageError, which names the flag, for amounts that nothing can be given."""
    for name, amount in amounts.items():
        if amount < 0 or (name == "gpus" and amount > 1 and amount % 1):
            raise UsageError(f"{flag} {name}={amount:g}: give 0 or more; beyond one GPU, whole ones")
        if name == "cpus" and (amount < 1 or amount % 1):
            raise UsageError(f"{flag} {name}={amount:g}: give whole cores, 1 or more")


def check_address(address: str, what_runs: str) -> None:
    """Raise UsageError unless `address` is what `join_cluster` takes; `what_runs` there is "replicas run", say."""
    if address != RAY and not address.startswith(f"{RAY}://"):
        raise UsageError(f"--on {address}: {what_runs} on ray, or on ray://HOST:10001")


def join_cluster(address: str) -> bool:
    """Connect this process to a cluster, and tell whether it was not connected before, and is to leave it at the end.

    `address` is "ray", the cluster that RAY_ADDRESS names, or that this machine is part of, or one of this machine
    alone; or "ray://HOST:PORT". A program that is connected already stays so. Raises ClusterError where it cannot be
    reached.
    """
    import ray

    os.environ.setdefault(_STATISTICS, "0")
    if ray.is_initialized():
        return False
    check_reachable(address)
    try:
        with _kept_handler():
            ray.init(None if address == RAY else address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds, none of which is documented
        raise make_unreachable(address, " ".join(str(error).split())) from None
    return True


@contextmanager
def _kept_handler() -> Iterator[None]:
    """Leave SIGTERM to whoever heard it before: Ray's own handler would end the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def check_reachable(address: str) -> None:
    """Raise ClusterError where nothing listens at the address of the cluster: Ray itself would try for many minutes."""
    named = (os.environ.get(_ADDRESS) or read_last_address()) if address == RAY else address
    host, _, port = named.removeprefix(f"{RAY}://").rpartition(":")
    if host and port.isdecimal() and (why := _find_silence(host, int(port))) is not None:
        raise make_unreachable(f"{address}, {named}" if address == RAY else address, why)


class Head:
    """The head of the cluster that this process has joined: a minute after it is gone Ray would end the process.

    One that is joined from outside (ray://) is not looked at. Looks should be some seconds apart.
    """

    def __init__(self) -> None:
        import ray

        outside = ray.util.client.ray.is_connected()
        self._address = None if outside else str(ray.get_runtime_context().gcs_address)
        self._failures = 0  # in a row

    @property
    def is_there(self) -> bool:
        """Whether it was there when it was last looked at."""
        return not self._failures

    def look(self) -> None:
        """Look whether something listens where it is."""
        if self._address is not None:
            host, _, port = self._address.rpartition(":")
            self._failures = 0 if _find_silence(host, int(port)) is None else self._failures + 1

    def check(self, kept: str) -> None:
        """Raise ClusterError once several looks in a row have not found it; `kept` says what is safe."""
        if self._failures >= _HEAD_LOOKS:
            raise ClusterError(
                f"the head of the Ray cluster ({self._address}) cannot be reached any more. {kept}; start the cluster "
                "again, and the same command goes on"
            )


def _find_silence(host: str, port: int) -> str | None:
    """Say why nothing can be reached there; None where something listens."""
    try:
        socket.create_connection((host.strip("[]"), port), REACHED_SECONDS).close()
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def read_last_address() -> str:
    """Read where Ray here takes a cluster to be: that of the last `ray start`, which may have ended since."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return Path(folder, "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return ""


def make_unreachable(address: str, why: str) -> ClusterError:
    """The error that says that a cluster cannot be reached."""
    return ClusterError(
        f"--on {address}: no Ray cluster can be reached there ({why}). Nothing was started. `ray status` on its head "
        f"says how it is; {_ADDRESS}=HOST:6379 names one that this machine is part of, and ray://HOST:10001 any. "
        "`ray stop` forgets one of this machine that has ended. One that asks for a token (`ray get-auth-token`) wants "
        "RAY_AUTH_MODE=token here, too"
    )
