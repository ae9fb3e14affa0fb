"""Pictures at http(s) addresses, fetched once: harvest-distill/pictures in the cache keeps them by their content.

    pictures/by-content/<first two digits>/<sha256>    the file's bytes
    pictures/by-address/<sha256 of the address>        the sha256 of what was there

Nothing is fetched twice, whatever becomes of the address; to fetch anew, delete the folder. What may succeed at another
attempt goes through tenacity's jittered backoff. A redirect leads to http(s) only.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from shared.console import say
from shared.disk import explain_disk_errors, make_folder, replace_file
from shared.errors import DataError
from shared.printable import make_printable
from shared.secrets import hide_secrets
from shared.sources import cache_folder

if TYPE_CHECKING:
    import httpx

MOST_FETCHED_BYTES = 64 << 20
ATTEMPTS = 4
SECONDS = 60.0  # for all of one attempt
CONNECT_SECONDS = 10.0
REDIRECTS = 5
AT_ONCE = 16
USER_AGENT = "harvest-distill (fetches the pictures that a data set names)"
_writing = Lock()  # two addresses may have one content
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _TryAgainError(Exception):
    """An attempt failed, and another may succeed."""


def is_web_address(place: str) -> bool:
    """Whether a picture lies at an http(s) address."""
    return place[:8].lower().startswith(("http://", "https://"))


def fetch_picture(address: str) -> Path:
    """The file of the picture at `address`, fetched unless it was before. Raises DataError, which names it without a
    query.

    An address that failed is not tried again by this process.
    """
    kept = _find_kept(address)
    if kept is not None:
        return kept
    problem = _fetch_once(address)
    kept = _find_kept(address)
    if problem is not None or kept is None:
        raise DataError(problem or f"the picture {name_address(address)} was fetched, and is gone from {_folder()}")
    return kept


def fetch_pictures(places: Iterable[str]) -> None:
    """Fetch those of `places` that are addresses and were not fetched before, several at once.

    What fails is told by fetch_picture.
    """
    addresses = filter(is_web_address, dict.fromkeys(places))
    wanted = [address for address in addresses if _find_kept(address) is None]
    if wanted:
        _say_fetching()
        with ThreadPoolExecutor(AT_ONCE, "fetch") as pool:
            list(pool.map(_fetch_once, wanted))


@cache
def _say_fetching() -> None:
    say(f"pictures are fetched from their addresses, once, into {_folder()}")


@cache
def _fetch_once(address: str) -> str | None:
    """Fetch a picture and keep it; why that failed, None where it did not."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    retrying = Retrying(
        retry=retry_if_exception_type(_TryAgainError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.5, max=20),
        reraise=True,
    )
    try:
        content = retrying(_attempt, address)
    except (_TryAgainError, DataError) as error:
        return f"the picture {name_address(address)} could not be fetched: {error}"
    _keep(address, content)
    return None


def _attempt(address: str) -> bytes:
    """Fetch once. Raises _TryAgainError, or DataError where another attempt would be no better."""
    import httpx

    timeout = httpx.Timeout(SECONDS / 2, connect=CONNECT_SECONDS)
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=REDIRECTS, timeout=timeout) as client,
            client.stream("GET", address, headers={"User-Agent": USER_AGENT}) as response,
        ):
            if response.status_code in _MAY_PASS:
                raise _TryAgainError(f"HTTP {response.status_code}")
            if response.status_code != 200:
                raise DataError(f"HTTP {response.status_code}")
            return _read(response)
    except httpx.UnsupportedProtocol:
        raise DataError("it leads to an address that is not http(s), which is not followed") from None
    except (httpx.TooManyRedirects, httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
        raise DataError(type(error).__name__) from None
    except httpx.HTTPError as error:
        raise _TryAgainError(type(error).__name__) from None


def _read(response: "httpx.Response") -> bytes:
    """The body, bounded in size and in time."""
    content, until = bytearray(), time.monotonic() + SECONDS
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MOST_FETCHED_BYTES:
            raise DataError(f"it is larger than {MOST_FETCHED_BYTES:,} bytes")
        if time.monotonic() > until:
            raise _TryAgainError(f"its {len(content):,} bytes took more than {SECONDS:g} s")
    if not content:
        raise DataError("an empty file came")
    return bytes(content)


def _keep(address: str, content: bytes) -> None:
    """Keep a picture by its content, then what lies at its address: no address names what is not whole."""
    digest = sha256(content).hexdigest()
    with _writing, explain_disk_errors(_folder()):
        for path, value in ((_find_content(digest), content), (_find_address(address), digest.encode())):
            make_folder(path.parent)
            replace_file(path, value)


def _find_kept(address: str) -> Path | None:
    with suppress(OSError):
        path = _find_content(_find_address(address).read_text("ascii"))
        return path if path.is_file() else None
    return None


def _folder() -> Path:
    return cache_folder() / "pictures"


def _find_content(digest: str) -> Path:
    return _folder() / "by-content" / digest[:2] / digest


def _find_address(address: str) -> Path:
    return _folder() / "by-address" / sha256(address.encode("utf-8", "surrogatepass")).hexdigest()


def name_address(address: str) -> str:
    """What a message calls an address: without a password, and what stands behind a `?`, which may be a signature."""
    return make_printable(hide_secrets(address.partition("?")[0].partition("#")[0]))
