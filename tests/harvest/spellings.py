"""A key as servers, proxies and libraries spell it when they repeat it."""

import html
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping

SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON escapes": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "JSON escapes in JSON": lambda key: "".join(f"\\\\u{ord(c):04X}" for c in key),
    "some JSON escapes": lambda key: "".join(f"\\u{ord(c):04x}" if i % 3 else c for i, c in enumerate(key)),
    "percent": lambda key: "".join(f"%{ord(c):02X}" for c in key),
    "percent twice": lambda key: "".join(f"%25{ord(c):02x}" for c in key),
    "base64": lambda key: b64encode(f"user:{key}".encode()).decode(),
    "base64url": lambda key: urlsafe_b64encode(f"Bearer {key}~".encode()).decode(),
    "hexadecimal": lambda key: key.encode().hex().upper(),
    "HTML": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "HTML in hexadecimal": lambda key: "".join(f"&#x{ord(c):x};" for c in key),
    "HTML twice": lambda key: html.escape("".join(f"&#{ord(c)};" for c in key)),
    "quoted-printable": lambda key: "".join(f"={ord(c):02X}" for c in key[:14]) + "=\r\n" + key[14:],
    "a literal of Python": lambda key: "".join(f"\\\\x{ord(c):02x}" for c in key),
    "upper case": str.upper,
    "backwards": lambda key: key[::-1],
    "half of it": lambda key: key[7:19],
}
_MARKS = {f"@{number}@": spell for number, spell in enumerate(SPELLINGS.values())}
ALL_MARKS = " and ".join(mark for mark, spell in _MARKS.items() if "\n" not in spell("key"))  # JSON can hold these


def choose_mark(seed: str) -> str:
    """One of the marks that spell_marks replaces, by `seed` alone."""
    marks = ALL_MARKS.split(" and ")
    return marks[zlib.crc32(seed.encode()) % len(marks)]


def spell_marks(body: bytes, key: str) -> bytes:
    """`body` with each mark replaced by the key in a spelling of its own, after JSON has escaped what is around it."""
    for mark, spell in _MARKS.items():
        body = body.replace(mark.encode(), spell(key).encode())
    return body


def list_halves(key: str) -> list[bytes]:
    """The first and the last half of the key in each spelling: what no file and no message may hold.

    Of base64 without the ends, which hold bits of what was beside the key.
    """
    halves = []
    for spell in SPELLINGS.values():
        spelled = spell(key)
        middle = len(spelled) // 2
        halves += [spelled[4:middle], spelled[middle:-4]]
    return [half.encode() for half in halves if len(half) >= len(key) // 3]
