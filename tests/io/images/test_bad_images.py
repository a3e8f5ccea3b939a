"""Every input that cannot be used is refused with one line: what was got, what was expected, the cure."""

import builtins
import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from corereg.errors import InputError
from corereg.io.images.companions import as_mask
from corereg.io.images.image import Image, as_image, read_image, read_labels, to_sitk
from corereg.io.images.npz import npz_arrays
from helpers.grids import make_grid
from helpers.images import ramp, save_nifti
from helpers.refusals import refusal

GRID = make_grid(orientation="oblique")
RAMP = ramp(GRID)
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def missing(folder: Path) -> Path:
    return folder / "nothing.nii.gz"


def text_named(name: str) -> Callable[[Path], Path]:
    """A writer of a file that is not what its name says."""

    def write(folder: Path) -> Path:
        (folder / name).write_text("patient 1")
        return folder / name

    return write


def slice_of_dicom(folder: Path) -> Path:
    (folder / "slice.dcm").write_bytes(bytes(132))
    return folder / "slice.dcm"


def empty_file(folder: Path) -> Path:
    (folder / "scan.nii").touch()
    return folder / "scan.nii"


def truncated_gzip(folder: Path) -> Path:
    path = save_nifti(folder / "whole.nii.gz", RAMP, GRID.affine)
    (folder / "scan.nii.gz").write_bytes(path.read_bytes()[:-200])
    return folder / "scan.nii.gz"


def gzip_without_its_last_byte(folder: Path) -> Path:
    path = save_nifti(folder / "whole.nii.gz", RAMP, GRID.affine)
    (folder / "scan.nii.gz").write_bytes(path.read_bytes()[:-1])
    return folder / "scan.nii.gz"


def gzip_with_a_flipped_byte(folder: Path) -> Path:
    content = bytearray(save_nifti(folder / "whole.nii.gz", RAMP, GRID.affine).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "scan.nii.gz").write_bytes(content)
    return folder / "scan.nii.gz"


def truncated_nifti(folder: Path) -> Path:
    path = save_nifti(folder / "whole.nii", RAMP, GRID.affine)
    (folder / "scan.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:2000]))
    return folder / "scan.nii.gz"


def truncated_metaimage(folder: Path) -> Path:
    SimpleITK.WriteImage(to_sitk(RAMP, GRID), str(folder / "whole.mha"))
    (folder / "scan.mha").write_bytes((folder / "whole.mha").read_bytes()[:-500])
    return folder / "scan.mha"


def two_dimensional(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", RAMP[:, :, 0], GRID.affine)


def two_dimensional_nrrd(folder: Path) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(RAMP[0]), str(folder / "scan.nrrd"))
    return folder / "scan.nrrd"


def single_slice(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", RAMP[:, :1], GRID.affine)


def frames(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", np.stack([RAMP, RAMP], -1), GRID.affine)


def frames_mha(folder: Path) -> Path:
    image = to_sitk(RAMP, GRID)
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image, image]), str(folder / "scan.mha"))
    return folder / "scan.mha"


def displacement_field(folder: Path) -> Path:
    return save_nifti(folder / "field.nii", np.zeros((*GRID.shape, 1, 3), np.float32), GRID.affine, intent_code=1007)


def complex_nifti(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", RAMP.astype(np.complex64), GRID.affine)


def colour_nifti(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", np.ones(GRID.shape, RGB), GRID.affine)


def colour_nrrd(folder: Path) -> Path:
    SimpleITK.WriteImage(to_sitk(np.ones((*GRID.shape, 3), np.uint8), GRID), str(folder / "scan.nrrd"))
    return folder / "scan.nrrd"


def constant(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", np.full(GRID.shape, -1024, np.int16), GRID.affine)


def all_nan(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", np.full(GRID.shape, np.nan, np.float32), GRID.affine)


def zero_spacing(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", RAMP, GRID.affine, pixdim=[1, 1, 0, 3, 0, 0, 0, 0])


def negative_spacing(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", RAMP, GRID.affine, pixdim=[1, 1, 1.5, -3, 0, 0, 0, 0])


def nan_spacing(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", RAMP, GRID.affine, pixdim=[1, np.nan, 1.5, 3, 0, 0, 0, 0])


def zero_spacing_mha(folder: Path) -> Path:
    SimpleITK.WriteImage(to_sitk(RAMP, make_grid()), str(folder / "whole.mha"))
    content = (folder / "whole.mha").read_bytes()
    assert b"ElementSpacing = 1 1.5 3" in content
    (folder / "scan.mha").write_bytes(content.replace(b"ElementSpacing = 1 1.5 3", b"ElementSpacing = 1 0.0 3"))
    return folder / "scan.mha"


def singular_sform(folder: Path) -> Path:
    return save_nifti(folder / "scan.nii", RAMP, GRID.affine, srow_z=GRID.affine[0])


def singular_affine_npz(folder: Path) -> Path:
    np.savez(folder / "scan.npz", scan=RAMP, affine=np.zeros((4, 4)))
    return folder / "scan.npz"


def two_arrays(folder: Path) -> Path:
    np.savez(folder / "scan.npz", fixed=RAMP, moving=RAMP)
    return folder / "scan.npz"


def pickled_array(folder: Path) -> Path:
    np.savez(folder / "scan.npz", scan=np.array([[[{}]]], dtype=object))
    return folder / "scan.npz"


def empty_folder(folder: Path) -> Path:
    (folder / "notes.txt").write_text("no scan here")
    return folder


@pytest.mark.filterwarnings("ignore:.*sform and its qform")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "does not exist"),
        (text_named("scan.nii"), "not a NIfTI image"),
        (text_named("scan.nii.gz"), "not compressed by gzip"),
        (text_named("scan.nrrd"), "cannot be read"),
        (text_named("scan.npz"), "no npz file"),
        (text_named("scan.jpg"), "not an image by its name"),
        (slice_of_dicom, "give the folder that it is in"),
        (empty_file, r"which is empty \(0 bytes\)"),
        (truncated_gzip, "gzip file that is cut short or damaged"),
        (gzip_without_its_last_byte, "gzip file that is cut short or damaged"),
        (gzip_with_a_flipped_byte, "gzip file that is cut short or damaged"),
        (truncated_nifti, r"cut short or damaged \(2000 of 8032 bytes are there\)"),
        (truncated_metaimage, r"cut short or damaged \(7180 of 7680 bytes are there\)"),
        (two_dimensional, r"2-D image or single slice of shape \(12, 16\)"),
        (two_dimensional_nrrd, r"2-D image or single slice of shape \(20, 16\)"),
        (single_slice, r"single slice of shape \(12, 1, 20\)"),
        (frames, r"4-D of shape \(12, 16, 20, 2\), expected one 3-D volume"),
        (frames_mha, r"4-D of shape \(12, 16, 20, 2\), expected one 3-D volume"),
        (displacement_field, r"5-D of shape \(12, 16, 20, 1, 3\), expected one 3-D volume"),
        (complex_nifti, "complex voxels"),
        (colour_nifti, "colour or vector voxels"),
        (colour_nrrd, "colour or vector voxels"),
        (constant, "voxels all equal -1024"),
        (all_nan, "without a single finite voxel"),
        (zero_spacing, r"spacing \[1.0, 0.0, 3.0\] in its header, expected positive numbers"),
        (negative_spacing, r"spacing \[1.0, 1.5, -3.0\] in its header"),
        (nan_spacing, r"spacing \[nan, 1.5, 3.0\] in its header"),
        (zero_spacing_mha, r"spacing from .* to \[1, 0, 3\]"),
        (singular_sform, "singular voxel-to-world affine"),
        (singular_affine_npz, "singular voxel-to-world affine"),
        (two_arrays, r"with the arrays \['fixed', 'moving'\], expected a single one"),
        (pickled_array, "no npz file of plain arrays"),
        (empty_folder, "without a DICOM image in it"),
    ],
)
def test_bad_image_is_refused_in_one_line(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path)
    text = refusal(read_image, path)
    assert path.name in text
    with pytest.raises(InputError, match=message):
        read_image(path)


@pytest.mark.parametrize("make", [two_dimensional_nrrd, frames_mha, colour_nrrd])
def test_images_in_memory_are_refused_alike(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    image = SimpleITK.ReadImage(str(make(tmp_path)))
    assert refusal(as_image, image).startswith("got the SimpleITK image")


def test_nibabel_image_of_several_frames_is_refused() -> None:
    frames = nibabel.Nifti1Image(np.stack([RAMP, RAMP], -1), GRID.affine)
    assert "got the nibabel image, 4-D" in refusal(as_image, frames)


def test_array_without_a_grid_is_refused_with_the_way_to_give_one() -> None:
    assert "give fixed_affine=, moving_affine= or affine=, or an Image" in refusal(as_image, RAMP)


def test_array_with_masked_voxels_is_refused_and_one_without_is_read() -> None:
    masked = np.ma.masked_greater(RAMP, RAMP.max() - 1)
    found = refusal(as_image, masked, affine=GRID.affine)
    assert f"{masked.mask.sum()} voxels are masked" in found
    assert np.array_equal(as_image(np.ma.array(RAMP), affine=GRID.affine).array, RAMP)


@pytest.mark.parametrize(("dtype", "words"), [(object, "object voxels"), (np.complex64, "complex voxels")])
def test_array_of_other_than_real_numbers_is_refused(dtype: type, words: str) -> None:
    assert words in refusal(as_image, RAMP.astype(dtype), affine=GRID.affine)


def test_array_on_a_grid_of_another_shape_is_refused() -> None:
    assert "(20, 16, 12) on a grid of shape (12, 16, 20)" in refusal(Image, RAMP.T, GRID)


def test_series_is_refused_for_a_file(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "scan.nii", RAMP, GRID.affine)
    assert "expected a DICOM folder" in refusal(read_image, path, series="1.2.3")


def test_label_map_of_floats_is_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "labels.nii", RAMP.astype(np.float32) / 2, GRID.affine)
    assert f"a label map of floats ({RAMP.size // 2} voxels such as -499.5)" in refusal(read_labels, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_label_map_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    array = np.ones(GRID.shape, np.float32)
    array[2, 3, 4] = value
    path = save_nifti(tmp_path / "labels.nii", array, GRID.affine)
    assert f"(1 voxels such as {value})" in refusal(read_labels, path)


def test_label_map_without_labels_is_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "labels.nii", np.zeros(GRID.shape, np.uint8), GRID.affine)
    assert "every voxel is 0" in refusal(read_labels, path)


def test_mask_of_another_place_is_refused(tmp_path: Path) -> None:
    moved = make_grid(orientation="oblique", origin_mm=(-31.0, 17.5, 204.5))
    path = save_nifti(tmp_path / "mask.nii", np.ones(GRID.shape, np.uint8), moved.affine)
    message = refusal(as_mask, path, like=GRID, of="the fixed image")
    assert "(-31, 17.5, 204.5)" in message
    assert "expected the grid of the fixed image: 12 x 16 x 20 voxels" in message
    assert "(-31, 17.5, 204.2)" in message


def test_empty_mask_is_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "mask.nii", np.zeros(GRID.shape, np.uint8), GRID.affine)
    assert "which is empty" in refusal(as_mask, path, like=GRID, of="the fixed image")


def test_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_nifti(tmp_path / "scan.nii", RAMP, GRID.affine)

    def denied(file: object, *args: Any, **kwargs: Any) -> Any:
        if file == path:
            raise PermissionError(13, "Permission denied")
        return open_file(file, *args, **kwargs)

    open_file = builtins.open
    monkeypatch.setattr(builtins, "open", denied)
    assert "may not be read" in refusal(read_image, path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((12, 16, 21)), "(12, 16, 21), expected that of the fixed image: (12, 16, 20)"),
        (np.zeros(GRID.shape), "which is empty"),
        (np.full(GRID.shape, np.nan), "which is empty"),
        (np.ones(GRID.shape, complex), "complex"),
        (np.full(GRID.shape, "x"), "expected one real number each"),
    ],
    ids=["another shape", "zeros", "NaN", "complex", "text"],
)
def test_mask_array_that_cannot_be_used_is_refused(array: np.ndarray, words: str) -> None:
    assert words in refusal(as_mask, array, like=GRID, of="the fixed image")


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_in_an_archive_of_any_packing_is_named_as_damage(packing: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", RAMP)
    path = tmp_path / "scan.npz"
    with zipfile.ZipFile(tmp_path / "plain.npz") as plain, zipfile.ZipFile(path, "w", packing) as packed:
        packed.writestr("arr_0.npy", plain.read("arr_0.npy"))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    assert "damaged" in refusal(npz_arrays, path)


def test_file_that_the_system_refuses_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        npz_arrays(tmp_path / "gone.npz")
