"""The figures of a comparison, and the page that shows them."""

import json
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest

from distill.compare.charts import make_ticks
from distill.compare.classifier import count_confusion
from distill.compare.disagreements import find_disagreements
from distill.compare.figures import write_calibration
from distill.compare.formats import format_scores, say_p
from distill.compare.quotes import quote_verdict
from distill.compare.results import judge_variants
from distill.compare.sentences import choose_wording, say_verdicts
from distill.compare.typeset import Table, escape_latex, make_entries, write_latex, write_markdown
from distill.controls import CONTROLS
from distill.scoring.calibration import measure_calibration
from shared.errors import UsageError
from shared.markdown import escape_markdown
from shared.shards.manifest import Manifest
from tests.distill.compare.made_report import PARTS, SCORES, check_page, make_chosen, make_pages, make_report


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    result, html = make_report()
    tags = check_page(html)
    for part in PARTS:
        assert f">{part}</h2>" in html
        assert f'<a href="#{part.lower().replace(" ", "-")}">{part}</a>' in html
    # two forests a number of labels, against plain fine-tuning and the teacher against its rivals; one efficiency
    # curve, a learning curve each, one reliability diagram
    assert html.count('<figure class="chart forest">') == 4
    assert html.count("<svg viewBox=") == 1 + 2 + 1
    assert tags.count("img") == 1
    assert "a &lt;b&gt;fine&lt;/b&gt; film" in html
    assert "a &lt;student&gt;, its embeddings and first 5 layers frozen" in html
    assert "Every variant took 63 optimisation steps" in html
    assert "$1.2500 for the teacher" in html
    assert all(escape(sentence) in html for sentence in result["sentences"])
    assert all(escape(quote_verdict(result, verdict)) in html for verdict in result["verdicts"])


def test_each_table_has_a_caption_and_its_copies_and_the_best_is_bold() -> None:
    result, html = make_report()
    tables = html.split('<figure class="table"><figcaption>')[1:]
    for table in tables:
        assert not table.startswith("<")
        assert "\\begin{tabular}" in table
        assert "|:---|" in table
    assert tables[0].startswith("The verdicts: the gain on plain fine-tuning in accuracy")
    spread = format_scores(result["groups"][0]["variants"][1]["scores"])
    assert f"<b>{spread}</b>" in html
    assert f"\\textbf{{{spread.replace('±', '$' + chr(92) + 'pm$')}}}" in html
    assert f"**{spread}**" in html
    assert "0.000 that" not in html


def test_the_glossary_has_the_variants_that_occur_and_no_others() -> None:
    _, html = make_report()
    glossary = html.split('<dl class="glossary">')[1].split("</dl>")[0]
    for word in (*SCORES, "verdict helps", CONTROLS["shuffled-teacher"].summary.replace("'", "&#x27;")):
        assert word in glossary
    assert "linear-probe" not in glossary
    assert "verdict hurts" not in glossary


def test_a_hostile_name_of_a_variant_is_text_in_the_page_and_in_each_copy() -> None:
    hostile = "<script>alert(1)</script> | 100% & $x_1^2$ \\input{a}\n# [b](c) *d* `e`"
    chosen = [
        replace(one, variant=hostile) if one.variant == "armada" else one
        for one in make_chosen(np.random.default_rng(0))
    ]
    _, html = make_pages(chosen, task="\\def\\x{y} <img src=x>")
    assert check_page(html).count("img") == 1  # the picture of a row
    latex = escape_latex(hostile)
    assert latex.startswith("$<$script$>$alert(1)$<$/script$>$ \\textbar{} 100\\% \\& \\$x\\_1\\textasciicircum{}2\\$")
    assert escape_latex('a "b" --c---d') == "a ''b'' -{}-c-{}-{}-d"
    assert "\\textbackslash{}input\\{a\\} \\# {[}b{]}(c) {*}d{*} `e`" in latex
    assert escape(latex) in html
    assert escape(escape_markdown(hostile)) in html


def test_latex_has_booktabs_one_line_a_row_and_a_minus_for_a_minus() -> None:
    table = Table("Of 5% & more", ("variant", "gain"), (make_entries(["a-1", "-0.05 (-0.10 to +0.01)"], [1]),))
    assert write_latex(table).splitlines() == [
        *("\\begin{table}", "\\centering", "\\caption{Of 5\\% \\& more}", "\\begin{tabular}{lr}", "\\toprule"),
        *("variant & gain \\\\", "\\midrule", "a-1 & \\textbf{$-$0.05 ($-$0.10 to +0.01)} \\\\"),
        *("\\bottomrule", "\\end{tabular}", "\\end{table}"),
    ]
    assert write_markdown(table).splitlines()[2:] == [
        *("| variant | gain |", "|:---|---:|", "| a-1 | **-0.05 (-0.10 to +0.01)** |"),
    ]


@pytest.mark.parametrize(
    ("p", "written"),
    [
        (0.0004, "p < .001"),
        (0.0117, "p = .012"),
        (0.02496, "p = .02496"),
        (0.02503, "p = .02503"),
        (0.0501, "p = .0501"),
        (0.05, "p = .050"),
        (1.0, "p > .999"),
    ],
)
def test_a_p_is_written_as_papers_do(p: float, written: str) -> None:
    assert say_p(p) == written


@pytest.mark.parametrize(
    ("outcome", "claimed", "unclaimed"),
    [
        ("helps", "It also beat every control and every baseline: one-sided p", "not"),
        ("matched", "It also beat every control (one-sided p", "and every baseline"),
        ("explained", "not shown to beat every control", "also beat"),
        ("uncontrolled", "No control was trained", "beat"),
        ("none", "No effect of the teacher's answers is shown", "beat"),
        ("hurts", "the student was worse", "beat"),
    ],
)
def test_a_sentence_to_quote_claims_what_the_verdict_does(outcome: str, claimed: str, unclaimed: str) -> None:
    result, _ = make_report()
    verdict = result["verdicts"][0]
    quote = quote_verdict(result, {**verdict, "outcome": outcome})
    first, _, claim = quote.partition(" test rows. ")
    for part in (
        "n = 5 seeds",
        " ± ",
        "95% CI +",
        "two-sided p < .001",
        "Holm-corrected over 2 tests",
        "the student, its embeddings and first 5 layers frozen, that learns",
        "on 300 rows held out from validation (mean",
    ):
        assert part in first
    assert claimed in claim
    assert unclaimed not in claim.replace("not shown to beat every", "")


def test_the_figures_are_json_and_hold_the_verdict() -> None:
    result, _ = make_report()
    assert json.loads(json.dumps(result))["verdict"] == result["verdict"]
    few, many = result["groups"]
    assert (few["labels"], many["labels"]) == (50, 1000)
    assert result["verdicts"][0]["control"]["variant"] == "self-training"
    assert {variant["variant"] for variant in few["variants"]} == set(SCORES)
    assert set(few["against_undistilled"]) == set(SCORES) - {"undistilled"}
    assert {teacher: set(each) for teacher, each in few["against_rivals"].items()} == {
        "armada": {"self-training", "shuffled-teacher", "pseudo-labels"}
    }
    first = few["variants"][0]
    assert first["score"] == pytest.approx(np.mean(first["scores"]))
    gain = few["against_undistilled"]["armada"]
    scores = {variant["variant"]: variant["score"] for variant in few["variants"]}
    assert gain["mean"] == pytest.approx(scores["armada"] - scores["undistilled"])
    assert result["verdicts"][0]["outcome"] == "helps"
    assert result["sentences"][0].startswith("With 50 labels, reader's answers (armada) help: +0.")


def test_a_verdict_on_students_that_write_says_what_they_are_held_against() -> None:
    chosen = [one for one in make_chosen(np.random.default_rng(0)) if one.labels == 50]
    (verdict,) = judge_variants([replace(one, labels=None) for one in chosen])
    spoken = {
        kind: say_verdicts([verdict], "scorer", "agreement", choose_wording(kind))[0]
        for kind in ("classification", "generation")
    }
    assert spoken["classification"].startswith("With all labels, scorer's answers (armada) help: +0.")
    assert " agreement against plain fine-tuning (95% interval " in spoken["classification"]
    assert spoken["generation"].startswith("With all rows, scorer's answers (armada) help: +0.")
    assert " agreement against the task's own texts alone (95% interval " in spoken["generation"]


def test_the_chart_of_confidences_says_what_is_right_of_several_labels() -> None:
    result, _ = make_report()
    assert "how often the likeliest label is right" in write_calibration(result)
    assert "how often what is likelier of each label" in write_calibration({**result, "metric": "f1_micro"})


def test_calibration_restated() -> None:
    logits = np.log(np.array([[[0.93, 0.07], [0.82, 0.18], [0.45, 0.55]], [[0.93, 0.07], [0.36, 0.64], [0.45, 0.55]]]))
    found = measure_calibration(logits, np.array([0, 0, 1]))
    assert sum(found.share) == pytest.approx(1)
    # By confidence: .93 and .93 right; .82 right; .64 wrong; .55 and .55 right: none near the edge of a bin.
    assert len(found.share) == 4
    by_bin = [s * abs(r - c) for s, r, c in zip(found.share, found.right, found.confidence, strict=True)]
    assert found.error == pytest.approx(sum(by_bin))
    assert found.error == pytest.approx((2 * 0.45 + 0.64 + 0.18 + 2 * 0.07) / 6)
    of_labels = np.array([0.93, 0.82, 0.55, 0.93, 0.36, 0.55])
    assert found.nll == pytest.approx(-np.log(of_labels).mean())
    assert found.brier == pytest.approx((2 * (1 - of_labels) ** 2).mean())


def test_confusions_are_means_over_seeds() -> None:
    logits = np.array([[[1, 0], [0, 1.0]], [[1, 0], [1, 0.0]]])
    assert count_confusion(logits, np.array([0, 1])) == [[1, 0], [0.5, 0.5]]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.02, 0.13), (0.61, 0.66), (-3, 250)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = make_ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert low <= ticks[0] < ticks[-1] <= high


def test_a_folder_of_pictures_that_is_not_there_is_named(tmp_path: Path) -> None:
    manifest = Manifest("films", "reader", "classification", ("bad", "good"), "accuracy", {}, "made")
    with pytest.raises(UsageError, match="harvest show"):
        find_disagreements(make_chosen(np.random.default_rng(0)), tmp_path, manifest, tmp_path / "none")
