"""Together's batches. Source: docs.together.ai, "Batch inference", and the types of together-python.

Up to half the price, and for some models none less; best within 24 hours; 50,000 requests or 100 MB a job. The request
that makes a job is answered with it inside `job`, states are in capitals, and jobs are listed all at once. A job is
found again by its file.
"""

from pathlib import Path

from harvest.teachers.batch.protocols.base import Http, Json, Terms
from harvest.teachers.batch.protocols.files import FileBatches


async def _upload(http: Http, requests: Path, name: str) -> str:
    fields = {"purpose": "batch-api", "file_name": f"{name}.jsonl", "file_type": "jsonl"}
    with requests.open("rb") as file:
        made = await http.fetch(
            "POST", f"{http.base}/files/upload", data=fields, files={"file": (f"{name}.jsonl", file)}
        )
    return str(made["id"])


async def _list_all(http: Http, since: float) -> list[Json]:
    found: list[Json] = await http.fetch("GET", f"{http.base}/batches")
    return found


TOGETHER = FileBatches(
    Terms(rows=50_000, bytes=100 * 10**6, certain=False),
    upload_file=_upload,
    list_all=_list_all,
    method_lines=False,
)
