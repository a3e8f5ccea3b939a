"""Figures and pages of a cohort."""

import os

from corereg.report.cohort import Cohort as CohortPage
from corereg.report.cohort import write_cohort_report
from corereg.report.figures import make_figures
from corereg.report.tables import latex


class TestFigures:
    def test_what_the_rows_do_not_have_is_not_drawn(self):
        assert make_figures({"a": [{"fixed": "f", "moving": "m", "sdlogj": 0.1, "seconds": 3.0}]}, {}) == {}

    def test_the_same_rows_give_the_same_bytes(self):
        rows = [
            {"fixed": f"f{n}", "moving": f"m{n}", "dice": 0.5 + n / 50, "sdlogj": 0.1 + n / 90, "seconds": 2.0 + n,
             "dice_per_label": {1: 0.5 + n / 50}} for n in range(7)
        ]  # fmt: skip
        first, again = (make_figures({"a": rows}, {1: "liver"}) for _ in range(2))
        assert first == again
        assert all(drawn.pdf.startswith(b"%PDF") for drawn in first.values())

    def test_latex_keeps_every_character(self):
        text = latex(["method", "p"], [["a_b & 5 %", "< 0.0001"], ["x", "0.6 \N{PLUS-MINUS SIGN} 0.1"]])
        assert text.splitlines() == [
            r"\begin{tabular}{lr}", r"\toprule", r"method & p \\", r"\midrule",
            r"a\_b \& 5 \% & $<$ 0.0001 \\", r"x & 0.6 $\pm$ 0.1 \\", r"\bottomrule", r"\end{tabular}",
        ]  # fmt: skip

    def test_batch_of_one_run_has_links_and_sorts(self, tmp_path):
        rows = [
            {"fixed": f"f{n}", "moving": "m", "dice": n / 10, "sdlogj": 0.05, "report": f"p{n}/report.html"}
            for n in range(3)
        ]
        page = CohortPage(title="Batch <1>", subtitle="three pairs", groups={"corereg": rows})
        write_cohort_report(tmp_path / "report.html", page)
        text = (tmp_path / "report.html").read_text("utf-8")
        assert 'href="p2/report.html"' in text
        assert "Batch &lt;1&gt;" in text
        assert 'id="pairs-group"' not in text

    def test_names_that_are_not_utf8_make_a_page_and_figures(self, tmp_path):
        name = os.fsdecode(b"caf\xe9")
        row = {"fixed": name, "moving": "m", "dice": 0.5, "sdlogj": 0.1, "seconds": 2.0, "dice_per_label": {"1": 0.5}}
        page = CohortPage(title=name, subtitle="", groups={name: [row, row]}, label_names={1: name}, command=name)
        write_cohort_report(tmp_path / "report.html", page)
        text = (tmp_path / "report.html").read_text("utf-8")
        assert text.count(r"caf\xe9") >= 4
        assert text.count("<img") == 3
