"""Real scans, where they are at hand: the numbers that the README states, and geometry that no phantom has."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import rankdata

import corereg
from corereg.data.phantom import make_breathing_pair
from corereg.evaluation.metrics import dice, mean_over_labels
from corereg.io.images.image import read_image, read_labels
from corereg.workflows.demo import BODY_ABOVE_HU


def headneck_pairs(data_dir):
    folder = data_dir / "headneck"
    for pair in json.loads((folder / "HeadNeckCT_dataset.json").read_text("utf-8"))["registration_val"]:
        yield {side: folder / pair[side] for side in ("fixed", "moving")}


def dice_of(pair, **settings):
    result = corereg.register(pair["fixed"], pair["moving"], affine="none", **settings)
    fixed, moving = (read_labels(str(p).replace("imagesTr", "labelsTr")) for p in (pair["fixed"], pair["moving"]))
    warped = result.transform.apply(moving, labels=True).array
    before = mean_over_labels(dice(fixed.array, moving.array, moving.array))
    return before, mean_over_labels(dice(fixed.array, warped, moving.array)), result


def test_one_head_and_neck_pair_gains_overlap_without_tearing(data_dir):
    before, after, result = dice_of(next(headneck_pairs(data_dir)))
    assert after > before + 0.1
    assert result.metrics["sdlogj"] < 0.12
    assert result.metrics["fold_percent"] < 1


def test_pair_aligned_beforehand_is_not_stretched(data_dir):
    pair = next(headneck_pairs(data_dir))
    result = corereg.register(pair["fixed"], pair["moving"], refine_steps=0)
    assert result.alignment is not None
    np.testing.assert_allclose(stretches(result.alignment.affine), 1, atol=1e-6)


@pytest.mark.parametrize(("fixed", "moving"), [("0027", "0028"), ("0036", "0037")])
def test_scans_blanked_beyond_oblique_planes_are_not_stretched_until_the_blanks_agree(data_dir, fixed, moving):
    pair = [data_dir / "headneck" / "imagesTr" / f"HeadNeckCT_{number}_0000.nii.gz" for number in (fixed, moving)]
    alignment = corereg.register(*pair, refine_steps=0).alignment
    assert alignment is not None
    np.testing.assert_allclose(stretches(alignment.affine), 1, atol=1e-6)
    np.testing.assert_allclose(alignment.affine[:3, 3], 0, atol=10)


@pytest.mark.slow
@pytest.mark.parametrize(("fixed", "moving"), [("0027", "0028"), ("0036", "0037")])
def test_scans_blanked_beyond_oblique_planes_end_as_well_as_from_their_headers(data_dir, fixed, moving):
    pair = [data_dir / "headneck" / "imagesTr" / f"HeadNeckCT_{number}_0000.nii.gz" for number in (fixed, moving)]
    labels = [read_labels(str(path).replace("imagesTr", "labelsTr")) for path in pair]
    aligned, kept = (
        mean_over_labels(
            dice(
                labels[0].array,
                corereg.register(*pair, affine=affine).transform.apply(labels[1], labels=True).array,
                labels[1].array,
            )
        )
        for affine in ("auto", "none")
    )
    assert aligned > kept - 0.02


@pytest.mark.parametrize("patient", ["011", "016", "022"])
def test_ct_and_mr_of_one_limb_are_stretched_only_where_that_aligns_the_bone(data_dir, patient):
    """A limb is flattened by the table or the coil."""
    ct, mr = (read_image(data_dir / "sarcoma_ct_mr" / f"sts_{patient}_{kind}.nii.gz") for kind in ("ct", "mr"))
    maps = [
        corereg.register(ct, mr, refine_steps=0, spacing=6.0, affine=affine).alignment for affine in ("rigid", "auto")
    ]
    if np.allclose(stretches(maps[1].affine), 1, atol=1e-6):
        return
    bone = ndimage.binary_opening(ct.array > 250)
    near = ndimage.distance_transform_edt(~bone, sampling=ct.grid.spacing) < 12
    rigid, stretched = (information(ct, mr, alignment.affine, near) for alignment in maps)
    assert stretched > 1.5 * rigid


def stretches(affine):
    return np.linalg.svd(affine[:3, :3], compute_uv=False)


def information(fixed, moving, affine, inside):
    """Mutual information of both images inside, where the moving one is known."""
    there = corereg.Transform((affine,), fixed=fixed)
    inside = inside & (there.apply(corereg.Image(np.ones(moving.array.shape, np.float32), moving.grid)).array > 0.99)
    values = [fixed.array[inside], there.apply(moving).array[inside]]
    joint = np.histogram2d(*(rankdata(each) for each in values), bins=16)[0]
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    return (joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])).sum()


@pytest.mark.slow
def test_mean_dice_on_head_and_neck_validation(data_dir):
    scores = np.array([dice_of(pair)[:2] for pair in headneck_pairs(data_dir)])
    assert len(scores) == 15
    assert (scores[:, 1] > scores[:, 0]).all()
    assert scores[:, 1].mean() > 0.60


@pytest.mark.slow
def test_upper_abdomen_finds_its_place_in_a_larger_field_of_view(data_dir):
    """Centres of mass would put the upper abdomen of one patient onto the pelvis of the other, 115 mm too low."""
    abdomen = data_dir / "abdomen"
    result = corereg.register(abdomen / "patient_b.nii.gz", abdomen / "patient_a.nii.gz", refine_steps=0)
    liver = np.array([[70.0, -20.0, -290.0]])
    match = read_image(abdomen / "patient_a.nii.gz").grid.to_voxel(result.transform.apply_points(liver))[0]
    labels = read_labels(abdomen / "patient_a_labels.nii.gz")
    names = json.loads((abdomen / "patient_a_labels.json").read_text("utf-8"))
    liver_label = next(int(number) for number, (name, _) in names.items() if name == "liver")
    i, j, k = np.round(match).astype(int)
    near = labels.array[i - 4 : i + 5, j - 4 : j + 5, k - 4 : k + 5]
    assert (near == liver_label).any()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bound"), [("abdomen", 0.5), ("chest", 0.7)])
def test_breathing_of_known_motion_is_found_to_a_fraction_of_a_voxel(kind, bound):
    pair = make_breathing_pair(3, kind, 3.0)
    fixed, moving = (corereg.Image(a, pair.grid) for a in (pair.fixed, pair.moving))
    result = corereg.register(fixed, moving, affine="none")
    body = torch.as_tensor(pair.fixed > BODY_ABOVE_HU)
    found = result.refined.at(pair.grid).disp_vox
    truth = torch.as_tensor(pair.disp_vox)
    before, after = (float((truth - u).norm(dim=0)[body].mean()) for u in (torch.zeros(()), found))
    assert before > 3
    assert after < bound


def test_scans_are_told_from_label_maps(data_dir):
    folders = ("hippocampus_mr", "abdomen_mr")
    for scan in [next((data_dir / folder / "images").glob("*.nii.gz")) for folder in folders]:
        with pytest.warns(UserWarning, match="change from voxel to voxel"):
            read_labels(scan)
    maps = [next((data_dir / folder / "labels").glob("*.nii.gz")) for folder in folders]
    for path in [
        *maps,
        data_dir / "abdomen" / "patient_a_labels.nii.gz",
        data_dir / "brain" / "subject_e_labels.nii.gz",
    ]:
        read_labels(path)  # warnings are errors in tests
