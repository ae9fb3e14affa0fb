"""The four protocols under all faults: each row ends with one status, nothing is asked twice, and half is paid."""

from pathlib import Path

import pytest

from harvest.teachers.batch.protocols import PROTOCOLS
from harvest.teachers.batch.teacher import BatchTeacher
from shared.errors import TeacherError
from shared.schema import Status
from tests.harvest.batch_server import FOREIGN, BatchServer
from tests.harvest.teachers.batch.batch_runs import PRICE_IN, PRICE_OUT, ask_all, make_requests, make_teacher
from tests.harvest.teachers.endpoint.endpoint_runs import CANARY, check_no_file_shows

ROWS = 20
STATUSES = {Status.OK, Status.FAILED, Status.REFUSED}


@pytest.mark.parametrize("dialect", PROTOCOLS)
def test_under_all_faults_each_row_ends_with_one_status_for_half_the_price(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: the key reaches no file, other programs' jobs are left alone, and a kept reply is read again as it was."""
    monkeypatch.setenv("CANARY_KEY", CANARY)
    scoring = "votes" if dialect == "anthropic" else "top_logprobs"
    with BatchServer(dialect, faults=True, seed=3, looks=1) as server:
        teacher = make_teacher(
            server, tmp_path, dialect=dialect, scoring=scoring, votes=3, job_rows=12, api_key_env="CANARY_KEY"
        )
        requests = make_requests(teacher, ROWS)
        kept = ask_all(teacher, requests)
    assert kept.keys() == {request.key for request in requests}
    assert {reply.answer.status for reply in kept.values()} <= STATUSES
    assert not server.count.doubled
    replies = sum(runs for custom_id, runs in server.count.replies.items() if FOREIGN not in custom_id)
    paid = replies * (40 * PRICE_IN + PRICE_OUT) / 1e6 / 2
    assert sum(reply.answer.cost_usd or 0.0 for reply in kept.values()) == pytest.approx(paid)
    reread = BatchTeacher.make_reread(teacher.recipe())
    answers = [reply.answer for reply in kept.values() if reply.answer.raw is not None]
    assert len(answers) > ROWS / 2
    for answer in answers:
        assert answer.raw is not None
        assert answer.label_logprobs is not None
        again = reread(answer.raw)
        assert (again["status"], again["label_logprobs"]) == (answer.status, answer.label_logprobs)
    check_no_file_shows(CANARY, tmp_path)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_an_answer_that_says_nothing_names_its_job_which_is_taken_up_again(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_KEY", "a-key-of-the-tests")
    with BatchServer(dialect, looks=1) as server:
        teacher = make_teacher(server, tmp_path, dialect=dialect, scoring="votes", votes=1, api_key_env="BATCH_KEY")
        requests = make_requests(teacher, 3)
        server.strange = {"create", "look"}  # what was made is found again
        with pytest.raises(TeacherError, match=f"the job batch_1, which {tmp_path}/.* cannot be looked at"):
            ask_all(teacher, requests)
        server.strange = {"list", "look", "upload"}
        with pytest.raises(TeacherError, match=r"the job batch_1, .* the same command takes it up again"):
            ask_all(teacher, requests)
        server.strange = set()
        assert len(ask_all(teacher, requests)) == 3
        assert (server.count.jobs, server.count.doubled) == (1, [])


@pytest.mark.parametrize("routes", [{"upload"}, {"create", "list"}])
def test_a_job_that_may_not_be_made_is_named_by_its_folder(routes: set[str], tmp_path: Path) -> None:
    with BatchServer(looks=1) as server:
        teacher = make_teacher(server, tmp_path)
        requests = make_requests(teacher, 3)
        server.strange = routes
        with pytest.raises(TeacherError, match=f"the job of {tmp_path}/journal/batch/.* cannot be "):
            ask_all(teacher, requests)
        server.strange = set()
        assert len(ask_all(teacher, requests)) == 3
        assert (server.count.jobs, server.count.doubled) == (1, [])
