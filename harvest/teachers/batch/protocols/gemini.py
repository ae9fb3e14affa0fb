"""Gemini's batches by its compatible route. Source: ai.google.dev, "OpenAI compatibility", "Batch API", "Files API".

Half the price, within 24 hours, 2 GB a job. The compatible route makes jobs and tells how they are. Files go up and
come down by the native routes, which take the key in another header, and the list of jobs is a native one. A job is
found again by its file.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

from harvest.teachers.batch.protocols.base import PAGE, Http, Json, Terms, read_pieces
from harvest.teachers.batch.protocols.files import FileBatches, send_bearer

_COMPATIBLE = "/openai"
_TYPE = "application/jsonl"


def _send_key(key: str, url: str) -> Mapping[str, str]:
    """The API key: a bearer token of the compatible route, a header of the native ones."""
    if f"{_COMPATIBLE}/" in urlsplit(url).path:
        return send_bearer(key, url)
    return {"x-goog-api-key": key} if key else {}


def _find_native(http: Http, before: str, path: str) -> str:
    """A native route: `before` stands in front of the version, as in /upload/v1beta/files."""
    parts = urlsplit(http.base.removesuffix(_COMPATIBLE))
    return urlunsplit((parts.scheme, parts.netloc, f"{before}{parts.path}{path}", "", ""))


async def _upload(http: Http, requests: Path, name: str) -> str:
    size = str(requests.stat().st_size)
    begun = await http.fetch_headers(
        "POST",
        _find_native(http, "/upload", "/files"),
        json={"file": {"display_name": name}},
        headers={
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": size,
            "X-Goog-Upload-Header-Content-Type": _TYPE,
        },
    )
    made = await http.fetch(
        "POST",
        begun["X-Goog-Upload-URL"],
        content=partial(read_pieces, requests),
        headers={
            "Content-Length": size,
            "Content-Type": _TYPE,
            "X-Goog-Upload-Offset": "0",
            "X-Goog-Upload-Command": "upload, finalize",
        },
    )
    return str(made["file"]["name"])


def _find_content(http: Http, file: str) -> str:
    return _find_native(http, "/download", f"/{file}:download") + "?alt=media"


async def _list_all(http: Http, since: float) -> list[Json]:
    """The native list, in the shape of the compatible one: what a job is found by."""
    found: list[Json] = []
    page: Json = {"nextPageToken": ""}
    while "nextPageToken" in page:
        query = {"pageSize": PAGE, **({"pageToken": page["nextPageToken"]} if page["nextPageToken"] else {})}
        page = await http.fetch("GET", f"{_find_native(http, '', '/batches')}?{urlencode(query)}")
        for job in page.get("operations") or ():
            about = job.get("metadata") or {}
            file = (about.get("inputConfig") or {}).get("fileName")
            found.append({"id": job["name"], "status": "in_progress", "input_file_id": file})
    return found


GEMINI = FileBatches(
    Terms(rows=100_000, bytes=2 * 10**9),
    headers=_send_key,
    upload_file=_upload,
    find_content=_find_content,
    list_all=_list_all,
)
