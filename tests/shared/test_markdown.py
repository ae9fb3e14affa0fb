"""Names and labels of others in a card are text, whatever they hold."""

import pytest

from shared.markdown import escape_code, escape_markdown, hide_place


def test_nothing_of_a_name_is_markdown_html_or_a_control_character() -> None:
    assert escape_markdown("a|b\n# c") == r"a\|b \# c"
    assert escape_markdown("<script>[x](y)*") == r"\<script\>\[x\](y)\*"
    assert escape_markdown("_x_ and snake_case") == r"\_x\_ and snake_case"
    assert escape_markdown("\x1b[31m") == r"\\x1b\[31m"


@pytest.mark.parametrize(("text", "code"), [("a", "`a`"), ("a`b|c", r"``a`b\|c``"), ("`", "`` ` ``"), ("", "`  `")])
def test_code_holds_backticks_too(text: str, code: str) -> None:
    assert escape_code(text) == code


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/x/reviews.csv, 30 rows", "reviews.csv, 30 rows"),
        ("[~/data/films, D:\\me\\a.csv]", "[films, a.csv]"),
        ("pkg://m/x.csv hf://datasets/a/b https://h/x", "pkg://m/x.csv hf://datasets/a/b https://h/x"),
        ("org/name ./rel/a.csv", "org/name ./rel/a.csv"),
        ("/home/me", "~"),
        ("of /home/me.", "of ~."),
        ("[/home/me] /home/me! In /home/me. Then", "[~] ~! In ~. Then"),
        ("/home/me.old/a.csv", "a.csv"),
        ("file:///home/me/a.csv", "file://~/a.csv"),
        ("/home/meat", "meat"),
        ("a/b and/or c", "a/b and/or c"),
    ],
)
def test_a_path_of_this_machine_is_its_last_part(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert hide_place(text) == shown


@pytest.mark.parametrize(
    ("home", "text", "shown"),
    [("/", "either/or", "either/or"), ("/root", "/rootfs", "/rootfs"), ("/root", "b /root", "b ~")],
)
def test_a_home_is_no_more_than_itself(home: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert hide_place(text) == shown
