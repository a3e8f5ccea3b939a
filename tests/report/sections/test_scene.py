"""What the panels show."""

import dataclasses

import numpy as np
import pytest

from corereg.geometry.grid import Grid
from corereg.report.sections.images import make_sections
from corereg.report.sections.pictures import FOLD, MARKS
from corereg.report.sections.planes import body_mask, make_view, reorient
from corereg.report.sections.scene import Scene, nice_top
from corereg.report.sections.windows import Window, display_window
from helpers.grids import make_grid
from helpers.reports import decode, volumes


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

    def test_displacement_is_summarised_by_its_length_in_the_body(self):
        grid = make_grid()
        vectors = np.random.default_rng(0).normal(0, [[[[2]]], [[[0.5]]], [[[4]]]], (3, *grid.canonical().shape))
        scene = self.scene(grid, displacement=vectors.astype(np.float32))
        lengths = np.linalg.norm(vectors, axis=0)[scene.body]
        section = next(s for s in make_sections(scene) if s.key == "displacement")
        expected = f"inside the body: mean {lengths.mean():.3g} mm, maximum {lengths.max():.3g} mm"
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

    def test_ct_is_recognised_by_its_air(self):
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
