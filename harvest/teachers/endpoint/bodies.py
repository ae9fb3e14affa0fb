"""Bodies of replies, inflated in small steps: what is held in memory is bounded, whatever a server sends.

A few kilobytes of gzip can hold gigabytes of zeros, and gzip of gzip a thousand times that. Replies are asked for
unencoded; a server that compresses all the same may do so once, by gzip or deflate (RFC 9110 section 8.4.1).
"""

import zlib

MAX_BODY_BYTES = 16 * 2**20
STEP_BYTES = 64 * 2**10

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Body:
    """A body under way: `data` is what came of it, inflated, at most MAX_BODY_BYTES; `problem` says why it ends early.

    `encoding` is the reply's Content-Encoding. One that is not read leaves the bytes as they came, with a problem.
    """

    def __init__(self, encoding: str) -> None:
        self.data = bytearray()
        self.problem: str | None = None
        self._inflater = None
        name = encoding.strip().lower()
        if name in _WINDOWS:
            self._window = _WINDOWS[name]
            self._inflater = zlib.decompressobj(self._window)
        elif name not in ("", "identity"):
            self.problem = f"the body is encoded as {name[:80]!r}, which is not read: it was asked for unencoded"

    def add(self, chunk: bytes) -> bool:
        """Take the next bytes that came; false where no more are wanted."""
        if self._inflater is None:
            return self._keep(chunk)
        while chunk and not self._inflater.eof:
            try:
                inflated = self._inflater.decompress(chunk, STEP_BYTES)
            except zlib.error:
                if self._window == zlib.MAX_WBITS and not self.data:  # some servers mean the bare format by "deflate"
                    self._window = -zlib.MAX_WBITS
                    self._inflater = zlib.decompressobj(self._window)
                    continue
                self.problem = f"the compressed body is damaged after {len(self.data)} bytes"
                return False
            chunk = self._inflater.unconsumed_tail
            if not self._keep(inflated):
                return False
        return not self._inflater.eof

    def end(self) -> None:
        """Note that no more bytes come."""
        if self.problem is None and self._inflater is not None and not self._inflater.eof:
            self.problem = f"the compressed body broke off after {len(self.data)} bytes"

    def _keep(self, content: bytes) -> bool:
        self.data += content[: MAX_BODY_BYTES - len(self.data) + 1]
        if len(self.data) <= MAX_BODY_BYTES:
            return True
        self.problem = f"the body is longer than {MAX_BODY_BYTES} bytes"
        del self.data[MAX_BODY_BYTES:]
        return False
