"""The page of rows: what stands in it, and that nothing in it runs, asks or is markup but its own script."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image
from typer.testing import CliRunner

from harvest.asking.pictures import keep_pictures
from harvest.cli import app
from harvest.looking.agreement import judge_folder
from harvest.looking.view.config import RowQuery, ViewConfig
from harvest.looking.view.page import write_page
from harvest.looking.view.rows import RowIndex
from harvest.looking.view.server import RowServer
from harvest.looking.view.summary import summarise
from harvest.rendering import Layout, render
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards import TeacherFolder
from tests.browser import browse
from tests.shared.shards.schema1 import write_folder
from tests.shared.shards.shard_rows import make_key, make_manifest

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028{{ 7*7 }}"
LABELS = ("bad", "good")
LAYOUT = Layout(128, 128, max_font_size=20)
RECIPE = {"layout": LAYOUT.fingerprint(), "prompt": {"question": "?", "label_words": LABELS, "draw": "fields"}}


def make_row(number: int, **answer: Any) -> Row:
    """A row whose teacher says bad with more certainty the higher its number, and good from 10 on."""
    text = f"text {number}"
    bad = -0.1 - number / 1000 if number < 10 else -3.0
    given: dict[str, Any] = {
        "reply": LABELS[number >= 10],
        "label_logprobs": (bad, -3.1 - bad),
        "residual_mass": number / 100,
        "image_sha256": [page.sha256 for page in render(text, LAYOUT)],
        "cost_usd": 0.25,
        "asked_at": datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=number),
        "attempts": 1,
    }
    return Row(Example(str(number), text, label=number % 2), make_key(number), 0, Answer(Status.OK, **given | answer))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty rows, four of another split in a journal, one of which answers a sealed row again."""
    manifest = make_manifest(task="films", labels=LABELS, recipe=RECIPE, planned={"train": 20, "test": 3})
    with TeacherFolder.open(tmp_path / "data" / "films", manifest) as opened:
        opened.append("train", [make_row(number) for number in range(20)])
        opened.seal()
        hostile = Answer(Status.FAILED, reply=HOSTILE, error=HOSTILE, cost_usd=None)
        opened.append("test", [make_row(20), Row(Example(HOSTILE, HOSTILE, label=0), make_key(21), 0, hostile)])
        opened.append("train", [make_row(3, reply="again", label_logprobs=(-3.0, -0.1))])
        opened.commit()
        return opened.path


def read_data(page: bytes) -> dict[str, Any]:
    """What the page's script reads: the one block of data in it."""
    (content,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.decode(), re.DOTALL)
    data: dict[str, Any] = json.loads(content)
    return data


class Elements(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_command_writes_every_current_row_with_its_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parents[2])
    done = CliRunner().invoke(app, ["view", "data/films"])
    assert done.exit_code == 0, done.output
    assert "films-tiny.html: 22 rows" in done.stdout
    data = read_data(Path("films-tiny.html").read_bytes())
    rows = {(row["split"], row["id"]): row for row in data["rows"]}
    assert len(rows) == len(data["rows"]) == 22
    assert rows["train", "3"]["reply"] == "again"
    assert (rows["train", "3"]["gold"], rows["train", "3"]["said"], rows["train", "3"]["verdict"]) == ("good",) * 2 + (
        "right",
    )
    assert rows["train", "4"]["mass"] == pytest.approx(0.04)
    assert rows["test", HOSTILE]["cost"] is None
    (picture,) = rows["train", "4"]["pictures"]["shown"]
    assert picture["src"].startswith("data:image/webp;base64,")
    assert not picture["note"]
    assert CliRunner().invoke(app, ["view", "data/films", "--out", "data"]).exit_code == 2


def test_totals_are_those_of_the_other_commands(folder: Path) -> None:
    summary = summarise(RowIndex(folder).look())
    agreement = judge_folder(folder)
    assert agreement is not None
    assert summary["agreement"] == agreement.describe()
    assert (summary["rows"], summary["unsealed"], summary["planned"]) == (22, 3, 23)
    assert summary["statuses"] == {"ok": 21, "failed": 1}
    assert (summary["cost_usd"], summary["unpriced"]) == (22 * 0.25, 1)  # the answer that was given again was paid
    assert summary["spend"][-1][1] == 22 * 0.25
    assert [at for at, _ in summary["spend"]] == sorted(at for at, _ in summary["spend"])
    right = [summary["confusion"]["rows"][label][label] for label in (0, 1)]
    assert sum(right) == agreement.describe()["splits"]["all"]["right"]
    assert sum(map(sum, summary["confusion"]["rows"])) == 21


def test_a_row_that_is_sealed_while_its_page_is_open_is_one_row(folder: Path) -> None:
    index = RowIndex(folder)
    before = index.look()
    with TeacherFolder.open(folder.parent, replace(before.manifest, planned={})) as opened:
        opened.seal()
    after = index.look()
    assert sorted(before.rows["sample_id"]) == sorted(after.rows["sample_id"])
    assert (before.rows["sealed"].sum(), after.rows["sealed"].sum()) == (19, 22)
    assert after.read(after.rows.filter(sample_id="3"))[0].answer.reply == "again"


def test_a_large_harvest_is_a_sample_that_is_said_and_stays(folder: Path) -> None:
    snapshot = RowIndex(folder).look()
    few, more = (read_data(write_page(snapshot, ViewConfig(rows=count))) for count in (5, 10))
    assert "5 of 22 rows, a random sample" in few["size"]
    assert few["summary"]["rows"] == 22
    ids, wider = ([row["id"] for row in data["rows"]] for data in (few, more))
    assert len(ids) == 5
    assert set(ids) < set(wider)


def test_few_pictures_are_those_of_wrong_answers(folder: Path) -> None:
    rows = read_data(write_page(RowIndex(folder).look(), ViewConfig(pictures=2)))["rows"]
    shown = [row for row in rows if row["pictures"]["shown"]]
    assert [row["verdict"] for row in shown] == ["wrong", "wrong"]
    assert "--pictures" in next(row for row in rows if row not in shown)["pictures"]["note"]


def test_pictures_that_a_teacher_made_are_made_smaller(tmp_path: Path) -> None:
    content = BytesIO()
    Image.effect_noise((900, 600), 80).convert("RGB").save(content, "PNG")
    digest = sha256(content.getvalue()).hexdigest()
    with TeacherFolder.open(tmp_path, make_manifest()) as opened:
        opened.append("train", [make_row(1, image_sha256=[digest]), make_row(2, image_sha256=["0" * 64])])
    keep_pictures(opened.path, {digest: content.getvalue()})
    kept, lost = read_data(write_page(RowIndex(opened.path).look(), ViewConfig()))["rows"]
    (picture,) = kept["pictures"]["shown"]
    with Image.open(BytesIO(b64decode(picture["src"].partition(",")[2]))) as image:
        assert image.size == (512, 341)
    assert not lost["pictures"]["shown"]


def test_written_replies_are_judged_by_the_rule_of_their_task(tmp_path: Path) -> None:
    written: dict[str, Any] = {"kind": "generation", "labels": (), "answer_rule": "number"}
    with TeacherFolder.open(tmp_path, make_manifest(**written)) as opened:
        said = {"1": "it is 7", "2": "it is 8"}
        opened.append(
            "train",
            [
                Row(Example(name, "3 + 4?", target_text="7"), make_key(int(name)), 0, Answer(Status.OK, reply=reply))
                for name, reply in said.items()
            ],
        )
    data = read_data(write_page(RowIndex(opened.path).look(), ViewConfig()))
    assert [(row["gold"], row["said"], row["verdict"]) for row in data["rows"]] == [
        ("7", None, "right"),
        ("7", None, "wrong"),
    ]
    assert data["summary"]["confusion"] is None
    assert data["summary"]["agreement"]["splits"]["train"]["share"] == 0.5


def test_hostile_rows_are_text_and_nothing_leaves_the_page(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("pkg://reviews", HOSTILE.replace("\u2028", "")))
    page = write_page(RowIndex(folder).look(), ViewConfig())
    assert next(row for row in read_data(page)["rows"] if row["id"] == HOSTILE)["reply"] == HOSTILE
    elements = Elements(page).found
    assert [kind.get("type") for tag, kind in elements if tag == "script"] == ["application/json", None]
    assert not any(name.startswith("on") or name == "style" for _, kind in elements for name in kind)
    assert {kind["href"] for _, kind in elements if "href" in kind} == {"data:,"}
    assert "img" not in [tag for tag, _ in elements]
    assert "src" not in [name for _, kind in elements for name in kind]
    assert not re.search(rb"https?://", page)
    assert "\u2028" not in page.decode()
    (policy,) = [kind["content"] for _, kind in elements if kind.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_filter_that_the_page_has_has_a_name_that_can_be_read(folder: Path) -> None:
    elements = Elements(write_page(RowIndex(folder).look(), ViewConfig())).found
    names = {kind.get("name") for tag, kind in elements if tag in ("input", "select")}
    paged = {"first", "count"}  # by buttons
    assert {field.name for field in fields(RowQuery)} - paged == names - {None}


@pytest.fixture
def server(folder: Path) -> Iterator[RowServer]:
    with RowServer(folder) as opened:
        thread = Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def fetch(server: RowServer, path: str, host: str = "localhost") -> tuple[int, bytes]:
    """The status and the body of an answer, to a request under a host's name."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def fetch_json(server: RowServer, name: str, **parameters: Any) -> dict[str, Any]:
    status, body = fetch(server, f"/{server.key}/{name}?{urlencode(parameters)}")
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def find_ids(server: RowServer, **parameters: Any) -> list[str]:
    return [row["id"] for row in fetch_json(server, "rows", **parameters)["rows"]]


def test_a_served_page_asks_its_own_server_for_rows(server: RowServer) -> None:
    status, page = fetch(server, f"/{server.key}/")
    assert status == 200
    assert "connect-src 'self'" in unescape(page.decode())
    data = read_data(page)
    assert data["live"]
    assert not data["rows"]
    assert fetch_json(server, "rows", count=3, first=20)["total"] == 22
    assert find_ids(server, count=3, first=19, sort="order") == ["3", "20", HOSTILE]
    assert find_ids(server, status="failed") == [HOSTILE]
    assert find_ids(server, find="ALERT(2)") == [HOSTILE]
    assert find_ids(server, find="again", split="train") == ["3"]
    assert find_ids(server, split="test", verdict="wrong") == ["20"]
    assert find_ids(server, gold="bad", said="good", mass=0.15) == ["16", "18", "20"]
    assert find_ids(server, sort="mass", down=True, count=2) == ["20", "19"]
    assert find_ids(server, sort="cost")[-1] == HOSTILE  # of unknown cost
    (picture,) = fetch_json(server, "pictures", split="train", id="4", draw=0)["shown"]
    assert picture["src"].startswith("data:image/webp")


def test_other_names_and_other_addresses_are_refused(server: RowServer) -> None:
    page = f"/{server.key}/"
    for host in ("evil.example", "127.0.0.1.evil.example:80", "", "[", "localhost.evil.example"):
        status, body = fetch(server, page, host)
        assert status == 403
        assert server.key.encode() not in body
    assert fetch(server, page, f"127.0.0.1:{server.server_port}")[0] == 200
    for path in ("/", "/rows", "/summary", "/wrong/rows", f"/{server.key[:-1]}/rows"):
        assert fetch(server, path)[0] == 404
    for question in (
        "rows?mass=x",
        "rows?count=501",
        "rows?nonsense=1",
        "rows?sort=raw",
        "pictures?id=4",
        "pictures?id=4&split=train&draw=9",
    ):
        status, body = fetch(server, page + question)
        assert (status, list(json.loads(body))) == (400, ["error"])


def test_a_served_page_sees_what_a_harvest_adds(server: RowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harvest.looking.view.live.LOOK_SECONDS", 0.0)
    before = fetch_json(server, "summary")
    assert fetch_json(server, "summary")["version"] == before["version"]
    folder = Path(before["folder"])
    with TeacherFolder.open(folder.parent, replace(RowIndex(folder).look().manifest, planned={})) as opened:
        opened.append("train", [make_row(40)])
        opened.commit()
        added = fetch_json(server, "summary")
        assert (added["rows"], added["version"] > before["version"]) == (23, True)
        opened.seal()
    assert fetch_json(server, "summary")["unsealed"] == 0
    assert find_ids(server, find="text 40") == ["40"]


def test_a_shard_that_was_replaced_under_a_served_page_is_read_anew(
    server: RowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harvest.looking.view.live.LOOK_SECONDS", 1000.0)
    folder = Path(fetch_json(server, "summary")["folder"])
    (before,) = folder.glob("split=train/*.parquet")
    with TeacherFolder.open(folder.parent, replace(RowIndex(folder).look().manifest, planned={})) as opened:
        opened.append("train", [make_row(5, reply="another")])
        opened.seal()
    assert not before.exists()
    assert find_ids(server, find="another") == ["5"]


def test_a_folder_of_an_older_version_is_shown(tmp_path: Path) -> None:
    rows = [{"sample_id": f"{n}", "text": f"old {n}", "label": 1, "request_key": make_key(n)} for n in range(3)]
    folder = write_folder(tmp_path, make_manifest(), {"train": [rows[:2]]}, {"train": rows[1:]})
    data = read_data(write_page(RowIndex(folder).look(), ViewConfig()))
    assert sorted((row["id"], row["text"]) for row in data["rows"]) == [("0", "old 0"), ("1", "old 1"), ("2", "old 2")]


@pytest.mark.real
def test_a_browser_filters_sorts_and_runs_nothing_of_a_row(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "rows.html"
    page.write_bytes(write_page(RowIndex(folder).look(), ViewConfig()))
    everything = browse(page)
    assert ">22 rows found<" in everything
    table = everything[everything.index("<tbody") : everything.index("</tbody>")]
    assert "&lt;img src=x onerror=alert(2)&gt;" in table
    assert "<img" not in table
    assert "<script" not in table
    assert ">1 row found<" in browse(page, state="status=failed")
    wrong = browse(page, state="verdict=wrong&mass=0.1&sort=mass&down=on")
    masses = re.findall(r'<td class="more number">(0\.\d+)</td>', wrong)
    assert masses == sorted(masses, reverse=True)
    assert masses[0] == "0.200"
    assert masses[-1] >= "0.100"
