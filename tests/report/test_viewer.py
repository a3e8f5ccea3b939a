"""The pages in a real browser: no error, no request, everything that can be pressed does what it says."""

import base64
import gzip
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from corereg.geometry.grid import Grid
from corereg.report import viewer
from corereg.report.cohort import Cohort, write_cohort_report
from corereg.report.pair import write_report
from corereg.report.sections.planes import body_mask, make_view, reorient
from corereg.report.sections.scene import Scene
from corereg.report.sections.windows import Window
from helpers.browser import Browser
from helpers.grids import make_grid
from helpers.reports import COMMAND, SUMMARY, labels, volumes

NAMES = {2: "Liver"}
OPEN = "document.getElementById('viewer-open').click()"
CENTRE = "document.getElementById('viewer-centre').click(); scrollTo(0, 0); "
CENTRE += "document.getElementById('viewer').scrollIntoView()"
CHANGE = "(() => {{ const e = document.getElementById('viewer-{}'); e.value = '{}'; "
CHANGE += "e.dispatchEvent(new Event('input')) }})()"
LABELS = "(() => { const v = viewerOfReport.volumes.find(v => v.name === 'fixed-labels.nii.gz'); "
LABELS += "return [v.hdr.dims.slice(1, 4), Array.from(v.img)] })()"
READY = "document.getElementById('viewer').dataset.ready === 'true'"
SECONDS_TO_OPEN = 2.0
LARGEST_PAGE = 15_000_000


def decoded(png: bytes, folder: Path) -> np.ndarray:
    path = folder / "shot.png"
    path.write_bytes(png)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[..., :3].astype(int)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    grid = make_grid((36, 40, 30), (2.0, 1.5, 3.0), "PIR")
    given = volumes(grid)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, grid=grid, summary=SUMMARY, command=COMMAND, label_names=NAMES, **given, **labels(given))
    return path


@pytest.fixture(scope="module")
def chromium():
    # Chromium keeps a socket in its profile, whose path must be short.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as opened:
        yield opened


@pytest.fixture
def browser(chromium):
    """One browser for all tests, in which each of them finds a window as if it was new."""
    chromium.console.clear()
    chromium.requests.clear()
    chromium.resize(800, 600)
    chromium.call("Emulation.setEmulatedMedia", media="", features=[])
    return chromium


def open_viewer(browser: Browser, page: Path) -> None:
    """With the viewer open; where it is so already, only put back to where it starts."""
    if browser.run("location.href") == page.resolve().as_uri() and browser.run(READY):
        browser.run(CENTRE)
        return
    browser.open(page)
    if not browser.run("document.createElement('canvas').getContext('webgl2') !== null"):
        pytest.skip("this Chromium draws no WebGL")
    browser.run("document.getElementById('viewer').scrollIntoView()")
    browser.run(OPEN)
    browser.wait_for(READY)
    time.sleep(0.3)


class TestReport:
    def test_viewer_draws_the_scan_where_it_lies(self, browser, report, tmp_path):
        open_viewer(browser, report)
        box = browser.run(
            "(() => { const b = document.getElementById('viewer-canvas').getBoundingClientRect(); "
            "return [b.top, b.bottom, b.left, b.right].map(Math.round) })()"
        )
        top, bottom, left, right = (max(0, value) for value in box)
        canvas = decoded(browser.picture(), tmp_path)[top:bottom, left:right]
        assert (canvas.max(-1) > 40).mean() > 0.03
        canonical = make_grid((36, 40, 30), (2.0, 1.5, 3.0), "PIR").canonical()
        assert browser.run("viewerOfReport.volumes[0].hdr.dims.slice(1, 4)") == list(canonical.shape)
        affine = np.array(browser.run("viewerOfReport.volumes[0].hdr.affine"))
        np.testing.assert_allclose(affine, canonical.affine, atol=1e-3)
        assert browser.console == []

    def test_sliders_move_slices_and_keys_move_sliders(self, browser, report, tmp_path):
        open_viewer(browser, report)
        position = "Array.from(viewerOfReport.scene.crosshairPos)"
        before, picture = browser.run(position), decoded(browser.picture(), tmp_path)
        browser.run("document.getElementById('viewer-head-feet').focus()")
        for _ in range(5):
            browser.press("PageUp", 33)
        after = browser.run(position)
        assert after[:2] == before[:2]
        assert after[2] > before[2] + 0.2
        time.sleep(0.3)
        assert (decoded(browser.picture(), tmp_path) != picture).any(-1).mean() > 0.005
        place = browser.run("document.getElementById('viewer-place').textContent")
        browser.run("document.getElementById('viewer-centre').click()")
        assert browser.run(position) == before
        assert browser.run("document.getElementById('viewer-place').textContent") != place
        assert browser.console == []

    def test_blend_and_structures_change_the_picture(self, browser, report):
        open_viewer(browser, report)
        opacities = "viewerOfReport.volumes.map(v => [v.name, Math.round(100 * v.opacity)])"
        assert browser.run(opacities) == [["fixed.nii.gz", 100]]
        browser.run(CHANGE.format("blend", "60"))
        browser.run(CHANGE.format("structures", "warped-labels"))
        browser.wait_for(f"{opacities}.length === 3")
        time.sleep(0.3)
        shown = dict(browser.run(opacities))
        assert shown["warped.nii.gz"] == 60
        assert shown["warped-labels.nii.gz"] > 0
        browser.run(CHANGE.format("over", "before"))
        browser.wait_for(f"{opacities}.some(v => v[0] === 'before.nii.gz' && v[1] === 60)")
        assert dict(browser.run(opacities))["warped.nii.gz"] == 0
        assert browser.console == []

    @pytest.mark.parametrize("mode", ["colours", "checkerboard"])
    def test_comparisons_are_made_of_both_images_and_follow_the_window(self, browser, report, mode):
        open_viewer(browser, report)
        made = "viewerOfReport.volumes.find(v => v.name === 'composite.nii')"
        browser.run(CHANGE.format("compare", mode))
        browser.wait_for(f"{made} !== undefined")
        composed, voxels = browser.run(f"[{made}.img.length, viewerOfReport.volumes[0].img.length]")
        assert composed == (4 if mode == "colours" else 1) * voxels
        np.testing.assert_allclose(
            np.array(browser.run(f"{made}.hdr.affine")),
            np.array(browser.run("viewerOfReport.volumes[0].hdr.affine")),
            atol=1e-3,
        )
        mean = f"{made}?.img.reduce((sum, value) => sum + value)"
        before = browser.run(mean)
        browser.run(CHANGE.format("window", "-1350 150"))
        browser.wait_for(f"{made} !== undefined && {mean} !== {before}")
        assert browser.run("viewerOfReport.volumes[0].cal_min") == -1350
        browser.run(CHANGE.format("window", "-160 240"))
        browser.run(CHANGE.format("compare", "blend"))
        browser.wait_for(f"{made} === undefined")
        assert browser.console == []

    def test_flicker_of_the_viewer_alternates_and_stops(self, browser, report):
        open_viewer(browser, report)
        legend = "document.getElementById('viewer-legend').textContent"
        browser.run(CHANGE.format("compare", "flicker"))
        browser.wait_for(f"{legend} === 'Moving'", 10)
        browser.wait_for(f"{legend} === 'Fixed'", 10)
        browser.run(CHANGE.format("compare", "blend"))
        browser.wait_for(f"{legend} === ''")
        time.sleep(1.0)
        assert browser.run(legend) == ""
        assert browser.console == []

    def test_structures_become_outlines(self, browser, report):
        open_viewer(browser, report)
        browser.run(CHANGE.format("structures", "fixed-labels"))
        drawn = "viewerOfReport.volumes.find(v => v.name === 'fixed-labels.nii.gz')?.img.filter(l => l > 0).length"
        browser.wait_for(f"{drawn} > 0")
        filled = browser.run(drawn)
        browser.run("document.getElementById('viewer-outlines').click()")
        browser.wait_for(f"{drawn} < {filled}")
        shape, labels = browser.run(LABELS)
        given = np.reshape(labels, shape, order="F") > 0
        whole = ndimage.binary_fill_holes(given)
        assert np.count_nonzero(whole) == filled
        np.testing.assert_array_equal(given, whole & ~ndimage.binary_erosion(whole, border_value=1))
        browser.run("document.getElementById('viewer-outlines').click()")
        browser.wait_for(f"{drawn} === {filled}")
        browser.run(CHANGE.format("structures", "none"))
        assert browser.console == []

    def test_contents_lead_to_sections_and_stay_in_sight(self, browser, report):
        browser.open(report)
        links = browser.run("[...document.querySelectorAll('.contents a')].map(a => a.getAttribute('href'))")
        assert {"#flicker", "#viewer", "#images", "#jacobian", "#overlap", "#numbers"} <= set(links)
        assert all(browser.run(f"document.querySelector('{link}') !== null") for link in links)
        browser.run("document.querySelector('.contents a[href=\"#numbers\"]').click()")
        browser.wait_for("scrollY > 0")
        assert browser.run("document.querySelector('.contents').getBoundingClientRect().top") == 0

    def test_opens_without_an_error_or_a_request(self, browser, report):
        browser.open(report)
        assert browser.console == []
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
        assert len([url for url in browser.requests if url.startswith("file")]) == 1

    def test_flicker_toggles_by_mouse_and_by_keyboard(self, browser, report):
        browser.open(report)
        shown = "document.getElementById('flicker-shown').textContent"
        hidden = "getComputedStyle(document.querySelector('#flicker-stage img + img')).visibility"
        assert (browser.run(shown), browser.run(hidden)) == ("Fixed", "hidden")
        browser.run("document.getElementById('flicker-toggle').click()")
        assert (browser.run(shown), browser.run(hidden)) == ("Warped", "visible")
        browser.run("document.getElementById('flicker-toggle').focus()")
        browser.press("Enter", 13, "\r")
        assert browser.run(shown) == "Fixed"
        browser.run("document.getElementById('flicker-play').click()")
        browser.wait_for(f"{shown} === 'Warped'", 5)
        browser.wait_for(f"{shown} === 'Fixed'", 5)
        assert browser.console == []

    def test_print_and_dark_have_what_they_need(self, browser, report):
        browser.open(report)
        background = "getComputedStyle(document.body).backgroundColor"
        light = browser.run(background)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert browser.run(background) != light
        browser.call("Emulation.setEmulatedMedia", media="print")
        assert browser.run("getComputedStyle(document.getElementById('viewer')).display") == "none"
        assert browser.run("getComputedStyle(document.getElementById('jacobian')).display") != "none"

    def test_nothing_is_wider_than_a_small_window(self, browser, report):
        for width in (1280, 390):
            browser.resize(width, 800)
            browser.open(report)
            assert browser.run("document.documentElement.scrollWidth") <= width


class TestCohortPage:
    def test_headings_sort_and_the_list_filters(self, browser, tmp_path):
        rows = {"A": [{"fixed": f"f{n}", "moving": "m", "dice": d} for n, d in enumerate([0.5, float("nan"), 0.9])]}
        rows["B"] = [{"fixed": "f0", "moving": "m", "dice": 0.7}]
        write_cohort_report(tmp_path / "r.html", Cohort(title="Both", subtitle="", groups=rows))
        browser.open(tmp_path / "r.html")
        shown = "[...document.querySelectorAll('#pairs-table tbody tr')].filter(r => !r.hidden)"
        column = f"{shown}.map(r => r.cells[2].textContent)"
        assert browser.run(column) == ["0.500", "\N{EN DASH}", "0.900", "0.700"]
        heading = "document.querySelectorAll('#pairs-table th button')[2].click()"
        browser.run(heading)
        assert browser.run(column) == ["0.500", "0.700", "0.900", "\N{EN DASH}"]
        browser.run(heading)
        assert browser.run(column)[0] in ("0.900", "\N{EN DASH}")
        browser.run(
            "(() => { const s = document.getElementById('pairs-group'); s.value = 'B'; "
            "s.dispatchEvent(new Event('input')) })()"
        )
        assert browser.run(column) == ["0.700"]
        browser.resize(390, 800)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.console == []


def scene_of(grid: Grid, **changes: object) -> Scene:
    given = volumes(grid)
    fixed = reorient(given["fixed"], grid)
    window = Window(-160.0, 240.0, is_ct=True)
    body = body_mask(fixed, window)
    moving = {name: reorient(given[name], grid) for name in ("moving_before", "warped")}
    return Scene(make_view(body, grid), body, fixed, **moving, fixed_window=window, moving_window=window, **changes)


def image_of(volume: viewer.Volume) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume.data)))


class TestVolumes:
    def test_ct_keeps_hounsfield_units_of_all_windows_on_the_canonical_grid(self, grid):
        scene = scene_of(grid)
        fixed = scene.fixed.copy()
        fixed[0, 0, :3] = 900.0, 3000.0, np.nan
        scene = replace(scene, fixed=fixed)
        made = viewer.make_viewer(scene, grid, {})
        assert [(volume.key, volume.kind) for volume in made.volumes] == [
            ("fixed", "ct"),
            ("before", "ct"),
            ("warped", "ct"),
        ]
        image = image_of(made.volumes[0])
        np.testing.assert_allclose(image.affine, grid.canonical().affine, atol=1e-4)
        expected = np.nan_to_num(fixed, nan=-1024.0).clip(-1024, 2000)
        np.testing.assert_allclose(np.asarray(image.dataobj), expected, atol=2)
        assert (made.volumes[0].low, made.volumes[0].high) == (-160.0, 240.0)
        assert [name for name, *_ in made.windows] == ["Soft tissue", "Lung", "Bone"]
        assert not made.reduced

    def test_other_images_keep_what_is_brighter_than_their_window(self, grid):
        scene = scene_of(grid)
        bright = np.linspace(0.0, 1000.0, scene.fixed.size).reshape(scene.fixed.shape)
        scene = replace(scene, fixed=bright, fixed_window=Window(0.0, 500.0, is_ct=False))
        made = viewer.make_viewer(scene, grid, {})
        np.testing.assert_allclose(np.asarray(image_of(made.volumes[0]).dataobj), bright * 255 / 500, atol=0.51)
        assert (made.volumes[0].kind, made.volumes[0].low, made.volumes[0].high) == ("other", 0.0, 255.0)
        assert (made.volumes[1].kind, made.windows[0]) == ("ct", ("Normal", 0.0, 255.0))

    def test_too_many_bytes_make_larger_voxels_in_the_same_box(self, monkeypatch):
        grid = make_grid((40, 36, 44), (1.0, 1.5, 3.0), "oblique")
        rng = np.random.default_rng(0)
        noise = rng.uniform(-160, 240, grid.canonical().shape)
        scene = scene_of(grid)
        scene = replace(scene, fixed=noise)
        monkeypatch.setattr(viewer, "BYTES", 30_000)
        made = viewer.make_viewer(scene, grid, {})
        images = [image_of(volume) for volume in made.volumes]
        assert made.reduced
        assert sum(len(base64.b64decode(volume.data)) for volume in made.volumes) <= 30_000
        small = Grid(images[0].shape, images[0].affine)
        assert max(small.shape) < 44
        np.testing.assert_allclose(small.corners_mm(), grid.canonical().corners_mm(), atol=1e-2)

    def test_labels_keep_their_colours_whatever_their_numbers(self):
        grid = make_grid()
        fixed = np.zeros(grid.shape, np.int32)
        fixed[2:5, 3:6, 4:8] = 700
        warped = np.zeros(grid.shape, np.int32)
        warped[2:5, 3:6, 4:8] = 12
        scene = scene_of(grid, fixed_labels=fixed, warped_labels=warped)
        made = viewer.make_viewer(scene, grid, {700: "Liver"})
        maps = {volume.key: np.asarray(image_of(volume).dataobj) for volume in made.volumes}
        assert set(np.unique(maps["fixed-labels"])) == {0, 2}
        assert set(np.unique(maps["warped-labels"])) == {0, 1}
        np.testing.assert_array_equal(maps["fixed-labels"] > 0, fixed == 700)
        assert made.colours["labels"] == ["", "Label 12", "Liver"]
        assert made.colours["A"] == [0, 255, 255]


@pytest.mark.slow
def test_large_pair_opens_in_time(browser, tmp_path):
    """192 x 160 x 256 with noise like that of CT, which hardly compresses: the page stays small and opens fast."""
    grid = make_grid((192, 160, 256), (2.0, 2.0, 2.0), "LPS")
    rng = np.random.default_rng(0)
    given = volumes(grid)
    for name in ("fixed", "moving_before", "warped"):
        given[name] = (given[name] + rng.normal(0, 15, grid.shape)).astype(np.float32)
    path = tmp_path / "report.html"
    write_report(path, grid=grid, summary=SUMMARY, command=COMMAND, label_names=NAMES, **given, **labels(given))
    assert path.stat().st_size <= LARGEST_PAGE
    assert browser.open(path) < SECONDS_TO_OPEN
    open_viewer(browser, path)
    assert browser.console == []
