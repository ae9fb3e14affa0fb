"""Pages in one file: style, script and data in it. A page asks for nothing, and data is never markup.

Data holds what strangers and models wrote. It stands in the page as JSON in which no `<` is left, the script puts it
into the page as text only, and a Content-Security-Policy lets nothing run but this script, whatever the data is
(https://www.w3.org/TR/CSP3/; the hashes are those of the page's own style and script).
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

_BASE = Path(__file__).parent


def fill_page(
    parts: Path, title: str, scripts: Sequence[str], data: Mapping[str, Any], connects: str = "'none'"
) -> bytes:
    """Fill page.html of the folder `parts`, a Jinja template that extends base.html, with data.

    Its style is base.css and that folder's page.css, its script base.js and that folder's `scripts`. `connects` is
    where the script may ask: nowhere unless said (connect-src).
    """
    import orjson
    from jinja2 import Environment, FileSystemLoader

    css = _join(_BASE / "base.css", parts / "page.css")
    script = _join(_BASE / "base.js", *(parts / name for name in scripts))
    encoded = orjson.dumps(data).decode()
    template = Environment(loader=FileSystemLoader((parts, _BASE)), autoescape=True).get_template("page.html")
    page = template.render(
        title=title,
        style=css,
        style_hash=_hash(css),
        script=script,
        script_hash=_hash(script),
        connects=connects,
        data=encoded.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    )
    return page.encode()


def _join(*paths: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def _hash(content: str) -> str:
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"
