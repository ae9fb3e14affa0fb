"""The key is found in the spellings that servers give it, in pieces, and where a body broke off; nothing else is."""

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.teachers.endpoint.redaction import LEAST_PIECE, Redaction
from harvest.teachers.endpoint.secret import Secret
from shared.schema import Answer, Status
from tests.harvest.spellings import SPELLINGS
from tests.harvest.teachers.endpoint.endpoint_runs import CANARY


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_key_is_found_however_it_is_spelled(spelling: str) -> None:
    spelled = SPELLINGS[spelling](CANARY)
    cleaned = Secret(CANARY).clean(f'{{"a": "Bearer {spelled}", "é": "\\n"}}')
    assert "[redacted]" in cleaned
    assert len(cleaned) < 55  # some letters at the ends of base64 hold bits of what is beside the key
    assert cleaned.startswith('{"a": "Bearer ')
    assert cleaned.endswith('", "é": "\\n"}')


@pytest.mark.parametrize("spelling", ["as it is", "JSON escapes", "some JSON escapes", "percent twice", "HTML"])
def test_a_key_that_looks_like_an_escape_itself_is_found_too(spelling: str) -> None:
    key = "ab7=41cd9=42ef0=43gh"
    cleaned = Secret(key).clean(f'{{"a": "Bearer {SPELLINGS[spelling](key)}", "b": "\\u0041"}}')
    assert cleaned.startswith('{"a": "Bearer [redacted]", "b": "')


@pytest.mark.parametrize("spelling", ["as it is", "JSON escapes", "percent", "HTML", "quoted-printable", "hexadecimal"])
def test_a_body_that_breaks_off_in_the_key_shows_none_of_it(spelling: str) -> None:
    spelled = SPELLINGS[spelling](CANARY)
    for length in range(1, len(spelled)):
        cleaned = Secret(CANARY).clean(f'{{"a": "{spelled[:length]}', cut=True)
        left = cleaned.removeprefix('{"a": "')
        assert "[redacted]" in left or length <= 6 * 4, (length, cleaned)  # three letters and a part of the next
        assert len(left.replace("[redacted]", "")) <= 6 * 4


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.sampled_from(["as it is", "backwards", "hexadecimal"]),
    st.integers(0, len(CANARY) - LEAST_PIECE),
    st.integers(LEAST_PIECE, len(CANARY)),
    st.text(max_size=20).map(lambda text: quote(text, safe="")),
)
def test_a_piece_of_the_key_is_found_among_characters_of_its_own_kind(
    spelling: str, start: int, length: int, before: str
) -> None:
    letters = 2 if spelling == "hexadecimal" else 1
    piece = SPELLINGS[spelling](CANARY)[start * letters : (start + length) * letters].encode()
    cleaned = Redaction(CANARY).clean(b"1234567890123456 " + before.encode() + piece)
    assert piece not in cleaned
    assert b"[redacted]" in cleaned


def test_a_key_that_only_parsing_puts_together_leaves_nothing_that_spells_it() -> None:
    answer = Answer(Status.OK, reply=f"it is {CANARY}", raw=b"in parts", reply_ids=[1], reply_logprobs=[0.0])
    cleaned = Secret(CANARY).clean_answer(answer)
    assert (cleaned.reply, cleaned.raw, cleaned.reply_ids) == ("it is [redacted]", None, None)
    other = Answer(Status.OK, reply="positive", raw=b"positive")
    assert Secret(CANARY).clean_answer(other) is other


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.text(max_size=60))
def test_text_without_the_key_stays_and_text_with_it_loses_only_that(before: str, after: str) -> None:
    redaction = Redaction(CANARY)
    plain = json.dumps([before, quote(after), html.escape(after)]).encode()
    assert redaction.clean(plain) == plain
    assert CANARY.encode() not in redaction.clean(json.dumps([before, CANARY, after]).encode())
    echoed = json.dumps([before, f"Bearer {CANARY}", after])
    assert json.loads(redaction.clean(echoed.encode())) == [before, "Bearer [redacted]", after]
