"""The report: one file that needs nothing else, the same every time, the right way up."""

import base64
import dataclasses
import itertools
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.evaluation import metrics
from corereg.geometry.grid import Grid
from corereg.report.pair import write_report
from corereg.report.sections import pictures
from corereg.report.sections.images import make_sections
from corereg.report.sections.pictures import DIVERGING, FOLD, GREY, MARKS, SEQUENTIAL, Picture
from corereg.report.sections.planes import PLANES, View, Window, body_mask, display_window, make_view, reorient
from corereg.report.sections.scene import Scene, nice_top
from helpers.grids import make_grid
from helpers.reports import COMMAND, SUMMARY, labels, volumes

AXIAL, CORONAL, SAGITTAL = PLANES
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


def decode(picture: Picture, folder: Path) -> NDArray[np.uint8]:
    """(H, W, 3), by a decoder that is not ours."""
    path = folder / "picture.png"
    path.write_bytes(picture.png)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


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
                assert (attributes.get(name) or "data:").startswith("data:"), tag
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

    def test_only_what_is_given_is_shown(self, tmp_path):
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


class TestOrientation:
    """On grids stored as RAS, LPS, PIR and rotated off all axes."""

    @pytest.mark.parametrize("corner", list(itertools.product((0, 1), repeat=3)), ids=str)
    def test_bright_corner_lies_where_a_radiologist_expects_it(self, grid, corner):
        canonical = grid.canonical()
        shape = np.array(canonical.shape)
        spot = np.where(corner, shape - 3, 2)
        volume = np.zeros(grid.shape)
        stored = np.rint(grid.to_voxel(canonical.to_world(spot))).astype(int)
        volume[tuple(stored)] = 1
        # The three planes through the spot; right, front and head are the high ends of the canonical axes.
        centre = (int(spot[0]), int(spot[1]), int(spot[2]))
        view = View(canonical.shape, canonical.spacing, centre)
        to_right, to_front, to_head = corner
        expected = {"Axial": (to_front, to_right), "Coronal": (to_head, to_right), "Sagittal": (to_head, to_front)}
        for plane in PLANES:
            picture = view.magnify(view.cut(reorient(volume, grid), plane), plane)
            row, column = np.unravel_index(int(picture.argmax()), picture.shape)
            upper, left = row < picture.shape[0] / 2, column < picture.shape[1] / 2
            assert (upper, left) == tuple(map(bool, expected[plane.name])), plane.name

    def test_letters_at_the_edges(self):
        assert AXIAL.edges == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
        assert CORONAL.edges == {"left": "R", "right": "L", "top": "S", "bottom": "I"}
        assert SAGITTAL.edges == {"left": "A", "right": "P", "top": "S", "bottom": "I"}

    def test_world_order_is_that_of_the_canonical_grid(self, grid):
        stored = np.arange(np.prod(grid.shape)).reshape(grid.shape)
        upright, canonical = reorient(stored, grid), grid.canonical()
        assert upright.shape == canonical.shape
        for voxel in [(0, 0, 0), (1, 2, 3), (5, 0, 7)]:
            there = np.rint(grid.to_voxel(canonical.to_world(np.array(voxel)))).astype(int)
            assert upright[voxel] == stored[tuple(there)]

    def test_pixels_are_square_in_millimetres_and_equal_in_all_planes(self, grid):
        view = make_view(np.ones(grid.canonical().shape, bool), grid)
        for plane in PLANES:
            rows_mm, columns_mm = view.extent_mm[plane.rows], view.extent_mm[plane.columns]
            height, width = view.size_px(plane)
            assert height == pytest.approx(rows_mm / view.pixel_mm, abs=0.5)
            assert width == pytest.approx(columns_mm / view.pixel_mm, abs=0.5)
            assert height / width == pytest.approx(rows_mm / columns_mm, rel=0.01)

    def test_long_scan_is_drawn_with_fewer_pixels(self):
        view = View((512, 512, 1500), (0.9, 0.9, 1.0), (0, 0, 0))
        assert sum(np.prod(view.size_px(plane)) for plane in PLANES) < 610_000

    def test_planes_pass_through_the_centre_of_the_body(self, grid):
        canonical = grid.canonical()
        body = np.zeros(canonical.shape, bool)
        body[4:7, 8:11, 10:13] = True
        assert make_view(body, grid).centre_vox == (5, 9, 11)


class TestPictures:
    def test_png_is_what_another_decoder_reads(self, tmp_path):
        rng = np.random.default_rng(4)
        values = rng.random((37, 23))
        where = rng.random(values.shape) < 0.2
        decoded = decode(pictures.draw(values, GREY, [(FOLD, where)]), tmp_path)
        assert decoded.shape == (37, 23, 3)
        np.testing.assert_allclose(decoded[~where, 0] / 255, values[~where], atol=0.004)
        assert {bytes(colour).hex() for colour in decoded[where]} == {MARKS[FOLD].removeprefix("#")}

    def test_dimmed_pixels_are_darker_and_keep_their_order(self, tmp_path):
        values = np.tile(np.linspace(0, 1, 20), (2, 1))
        dimmed = np.array([[False], [True]]) & np.ones(values.shape, bool)
        bright, dark = decode(pictures.draw(values, GREY, dimmed=dimmed), tmp_path)[:, :, 0].astype(int)
        assert (dark <= bright).all()
        assert (np.diff(dark) >= 0).all()
        assert 0 < dark[-1] < bright[-1] == 255

    @pytest.mark.parametrize("ramp", [GREY, SEQUENTIAL], ids=["grey", "sequential"])
    def test_brighter_means_more(self, ramp):
        luminance = ramp.colours(100) @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(luminance) > -0.5).all()

    def test_equal_images_differ_nowhere(self, tmp_path):
        decoded = decode(pictures.draw(np.full((4, 6), 0.5), DIVERGING), tmp_path)
        assert decoded.max() < 8

    def test_checkerboard_takes_turns(self):
        board = pictures.checkerboard(np.zeros((4, 6)), np.ones((4, 6)), 2)
        assert board[:, ::2].tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 1], [1, 0, 1]]

    def test_edge_runs_inside_the_mask_and_not_along_the_frame(self):
        mask = np.zeros((6, 7), bool)
        mask[:4, 1:5] = True
        expected = mask.copy()
        expected[:3, 2:4] = False
        np.testing.assert_array_equal(pictures.edges(mask), expected)


class TestPanels:
    def scene(self, grid: Grid, **changes: object) -> Scene:
        given = volumes(grid)
        fixed = reorient(given["fixed"], grid)
        window = display_window(fixed)
        body = body_mask(fixed, window)
        scene = Scene(
            view=make_view(body, grid),
            body=body,
            fixed=fixed,
            moving_before=reorient(given["moving_before"], grid),
            warped=reorient(given["warped"], grid),
            fixed_window=window,
            moving_window=window,
        )
        return dataclasses.replace(scene, **changes)

    def test_folds_are_marked_where_they_are(self, tmp_path):
        grid = make_grid()
        scene = self.scene(grid)
        det_j = np.ones(grid.shape)
        det_j[scene.view.centre_vox] = -0.1
        section = next(s for s in make_sections(dataclasses.replace(scene, det_j=det_j)) if s.key == "jacobian")
        fold = np.frombuffer(bytes.fromhex(MARKS[FOLD].removeprefix("#")), np.uint8)
        for panel in section.rows[0].panels:
            marked = (decode(panel.picture, tmp_path) == fold).all(-1)
            voxel_px = [
                size / scene.view.shape[axis]
                for size, axis in zip(marked.shape, (panel.plane.rows, panel.plane.columns), strict=True)
            ]
            assert marked.sum() == pytest.approx(np.prod(voxel_px), rel=0.15)
            rows, _ = np.nonzero(marked)
            from_end = scene.view.shape[panel.plane.rows] - 1 - scene.view.centre_vox[panel.plane.rows]
            assert rows.mean() / voxel_px[0] == pytest.approx(from_end + 0.5, abs=0.1)
        assert "folds at 1 voxel," in section.rows[0].note

    def test_displacement_is_told_by_its_length_in_the_body(self):
        grid = make_grid()
        vectors = np.random.default_rng(0).normal(0, [[[[2]]], [[[0.5]]], [[[4]]]], (3, *grid.canonical().shape))
        scene = self.scene(grid, displacement=vectors.astype(np.float32))
        lengths = np.linalg.norm(vectors, axis=0)[scene.body]
        section = next(s for s in make_sections(scene) if s.key == "displacement")
        expected = f"in the body: mean {lengths.mean():.3g} mm, largest {lengths.max():.3g} mm"
        assert section.rows[0].note == expected

    def test_ct_is_not_subtracted_from_mr(self):
        grid = make_grid()
        scene = self.scene(grid, moving_window=Window(0.0, 500.0, is_ct=False))
        section = next(s for s in make_sections(scene) if s.key == "difference")
        assert section.rows == []
        assert "Not shown" in section.intro

    @pytest.mark.parametrize(("value", "top"), [(0.0, 1.0), (0.013, 0.015), (4.2, 5.0), (10.0, 10.0), (17.0, 20.0)])
    def test_colour_bar_ends_at_a_round_number(self, value, top):
        assert nice_top(value) == pytest.approx(top)

    def test_ct_is_told_by_its_air(self):
        assert display_window(np.array([[[-1000.0, 40.0]]])) == Window(-160.0, 240.0, is_ct=True)
        mr = display_window(np.linspace(0, 1000, 1001).reshape(7, 11, 13))
        assert (mr.low, mr.high, mr.is_ct) == (10.0, 990.0, False)

    def test_enclosed_air_belongs_to_the_body(self):
        volume = np.full((9, 10, 11), -1000.0)
        volume[1:8, 2:9, :] = 40.0
        volume[3:5, 4:6, :] = -900.0
        mask = body_mask(volume, display_window(volume))
        assert mask[3:5, 4:6].all()
        assert mask.sum() == 7 * 7 * 11
