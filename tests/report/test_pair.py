"""The report of a pair: one file that needs nothing else, the same every time."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from corereg.errors import InputError
from corereg.evaluation import metrics
from corereg.geometry.grid import Grid
from corereg.report.pair import write_report
from corereg.report.sections import pictures
from corereg.report.sections.planes import PLANES
from helpers.grids import make_grid
from helpers.reports import COMMAND, SUMMARY, labels, volumes

HOSTILE = "<script>alert('x')</script> \"quoted\" & <img src=http://example.com/a.png onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and all text outside of scripts and styles."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module", params=["PIR", "oblique"])
def page(request, tmp_path_factory) -> Page:
    grid = make_grid(orientation=request.param)
    given = volumes(grid)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, grid=grid, summary=SUMMARY, command=COMMAND, **given, **labels(given), label_names={2: "Liver"})
    return Page(path)


class TestPage:
    def test_holds_all_sections_and_well_formed_elements(self, page):
        ids = {attributes.get("id") for attributes in page.all("section")}
        images = {"images", "difference", "checkerboard", "deformed-grid", "displacement", "jacobian"}
        assert images | {"flicker", "viewer", "overlap", "numbers", "command"} <= ids
        assert page.open == []
        assert [attributes["lang"] for attributes in page.all("html")] == ["en"]

    def test_every_picture_is_inside_and_says_what_it_shows(self, page):
        shown = [attributes for attributes in page.all("img") if "src" in attributes]
        assert len(shown) == 10 * len(PLANES)
        for attributes in shown:
            assert attributes["src"].startswith("data:image/png;base64,")
            assert base64.b64decode(attributes["src"].partition(",")[2]).startswith(pictures.PNG_SIGNATURE)
        assert all(attributes["alt"] for attributes in page.all("img"))

    def test_asks_for_nothing_from_outside(self, page):
        for tag, attributes in page.elements:
            for name in ("src", "href", "srcset", "action", "data", "poster"):
                assert (attributes.get(name) or "data:").startswith(("data:", "#")), tag
        policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy

    def test_needs_no_external_style_or_script(self, tmp_path):
        grid = make_grid()
        write_report(tmp_path / "report.html", grid=grid, summary=SUMMARY, command=COMMAND, **volumes(grid))
        text = (tmp_path / "report.html").read_text("utf-8")
        assert "http://" not in text
        assert "https://" not in text
        assert "@import" not in text
        assert "url(" not in text

    def test_flicker_has_two_real_buttons(self, page):
        buttons = [attributes["id"] for attributes in page.all("button") if attributes["type"] == "button"]
        assert buttons[:2] == ["flicker-toggle", "flicker-play"]

    def test_prints_numbers_settings_and_the_command(self, page):
        for text in (COMMAND, "fixed.nii.gz", "Mean Dice", "0.8123", "SDlogJ", "TRE (mm)", "8, 4", "mind", "Refine"):
            assert text in page.text
        assert "nan" not in page.text.lower().split()

    def test_prints_the_overlap_that_the_metrics_give(self, page):
        names = labels(volumes(make_grid()))
        before = metrics.dice(names["fixed_labels"], names["moving_labels"])[2]
        after = metrics.dice(names["fixed_labels"], names["warped_labels"])[2]
        assert before < after
        assert "Liver" in page.text
        assert f"{before:.3g}" in page.text
        assert f"{after:.3g}" in page.text


class TestFile:
    def test_same_input_gives_the_same_bytes(self, tmp_path):
        grid = make_grid(orientation="oblique")
        for name in ("a.html", "b.html"):
            write_report(tmp_path / name, grid=grid, summary=SUMMARY, command=COMMAND, **volumes(grid))
        assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]

    def test_hostile_names_stay_text(self, tmp_path):
        grid = make_grid()
        given = volumes(grid)
        summary = {HOSTILE: HOSTILE, "settings": {HOSTILE: HOSTILE}, "metrics": {HOSTILE: HOSTILE}}
        path = tmp_path / "report.html"
        write_report(
            path,
            grid=grid,
            summary=summary,
            command=HOSTILE,
            title=HOSTILE,
            label_names={2: HOSTILE},
            **given,
            **labels(given),
        )
        page = Page(path)
        kinds = [attributes.get("type") for attributes in page.all("script")]
        assert kinds.count(None) == 2
        assert set(kinds) == {None, "text/plain", "application/json"}
        assert all("onerror" not in attributes for _, attributes in page.elements)
        assert all((a.get("src") or "data:").startswith("data:") for a in page.all("img"))
        assert page.text.count(HOSTILE) >= 6
        assert HOSTILE.encode() not in path.read_bytes()

    def test_only_given_values_are_shown(self, tmp_path):
        grid = make_grid()
        given = {name: volumes(grid)[name] for name in ("fixed", "moving_before", "warped")}
        write_report(tmp_path / "report.html", grid=grid, summary={}, command=COMMAND, **given)
        ids = {attributes.get("id") for attributes in Page(tmp_path / "report.html").all("section")}
        assert ids == {"flicker", "viewer", "images", "difference", "checkerboard", "numbers", "command"}

    def test_jacobian_without_its_border_is_padded(self, tmp_path):
        grid = make_grid()
        given = volumes(grid)
        given["det_j"] = metrics.jacobian_determinant(np.zeros((3, *grid.shape)))
        write_report(tmp_path / "report.html", grid=grid, summary={}, command=COMMAND, **given)
        assert "no folds anywhere" in Page(tmp_path / "report.html").text

    @pytest.mark.parametrize("name", ["warped", "moving_before", "disp_mm", "det_j"])
    def test_volume_of_another_grid_is_refused_and_nothing_is_left(self, name, tmp_path):
        grid = make_grid()
        given = volumes(grid)
        given[name] = given[name][..., :-1]
        with pytest.raises(InputError, match=f"got {name} of shape"):
            write_report(tmp_path / "report.html", grid=grid, summary={}, command=COMMAND, **given)
        assert list(tmp_path.iterdir()) == []

    def test_failed_writing_leaves_nothing(self, tmp_path):
        grid = make_grid()
        (tmp_path / "report.html").mkdir()
        with pytest.raises(InputError, match=r"report\.html"):
            write_report(tmp_path / "report.html", grid=grid, summary={}, command=COMMAND, **volumes(grid))
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

    @pytest.mark.parametrize("value", [0.0, float("nan")])
    def test_constant_or_empty_images_make_a_page(self, value, tmp_path):
        grid = make_grid()
        blank = np.full(grid.shape, value)
        write_report(
            tmp_path / "report.html",
            fixed=blank,
            warped=blank,
            moving_before=blank,
            grid=grid,
            disp_mm=np.zeros((3, *grid.shape)),
            det_j=np.ones(grid.shape),
            summary={},
            command=COMMAND,
        )
        assert Page(tmp_path / "report.html").open == []

    def test_real_pair_makes_a_page_below_5_mb(self, data_dir, tmp_path):
        fixed, moving = (
            SimpleITK.GetArrayFromImage(
                SimpleITK.ReadImage(str(data_dir / "headneck" / "imagesTr" / f"HeadNeckCT_{n:04d}_0000.nii.gz"))
            ).T
            for n in (1, 2)
        )
        grid = Grid.from_spacing(fixed.shape, (3.0, 3.0, 3.0))
        path = tmp_path / "report.html"
        given = {"fixed": fixed, "warped": moving, "moving_before": moving, "grid": grid}
        write_report(path, summary={}, command=COMMAND, **given)
        assert 1_000_000 < path.stat().st_size < 5_000_000
        write_report(path, summary={}, command=COMMAND, viewer=False, **given)
        assert 100_000 < path.stat().st_size < 3_000_000
