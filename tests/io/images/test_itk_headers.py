"""MetaImage and NRRD headers that lead elsewhere, or declare more than there is, never reach ITK's parsers."""

import gzip
import os
import resource
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from corereg.errors import InputError
from corereg.io.images.image import as_image, read_image, to_sitk, write_image
from corereg.io.images.series import read_series
from helpers.grids import make_grid
from helpers.images import ramp
from helpers.refusals import refusal

GRID = make_grid()


def changed(path: Path, **values: str) -> Path:
    """A header with the values of some keys replaced, or keys put before the last line."""
    lines = path.read_bytes().split(b"\n")
    for key, value in values.items():
        key = key.replace("_", " ") if path.suffix in (".nrrd", ".nhdr") else key
        separator = b": " if path.suffix in (".nrrd", ".nhdr") else b" = "
        new = key.encode() + separator + value.encode()
        at = [n for n, line in enumerate(lines) if line.startswith(key.encode() + separator)]
        lines[at[0] if at else 1 : at[0] + 1 if at else 1] = [new]
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.parametrize("name", ["%s%s%n", "%d", "../secret", "/etc/passwd", "a/../../b", "C:\\secret", "x\x07"])
@pytest.mark.parametrize(("suffix", "key"), [(".mhd", "ElementDataFile"), (".nhdr", "data_file")])
def test_data_beyond_the_header_s_folder_are_refused(tmp_path: Path, suffix: str, key: str, name: str) -> None:
    write_image(tmp_path / f"scan{suffix}", ramp(GRID), GRID)
    message = refusal(read_image, changed(tmp_path / f"scan{suffix}", **{key: name}))
    assert "header names the data file" in message
    assert "passwd:" not in message


@pytest.mark.parametrize(("suffix", "key"), [(".mhd", "ElementDataFile"), (".nhdr", "data_file")])
@pytest.mark.parametrize("name", ["/etc/passwd", "%s"])
def test_listed_data_files_are_checked_too(tmp_path: Path, suffix: str, key: str, name: str) -> None:
    write_image(tmp_path / f"scan{suffix}", ramp(GRID), GRID)
    path = changed(tmp_path / f"scan{suffix}", **{key: "LIST"})
    path.write_bytes(path.read_bytes().rstrip(b"\n") + b"\n" + name.encode() + b"\n")
    assert "header names the data file" in refusal(read_image, path)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_data_below_the_header_are_read(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"scan{suffix}", ramp(GRID), GRID)
    (data,) = (file for file in tmp_path.iterdir() if file.suffix != suffix)
    (tmp_path / "below").mkdir()
    data.rename(tmp_path / "below" / data.name)
    key = "ElementDataFile" if suffix == ".mhd" else "data_file"
    image = read_image(changed(tmp_path / f"scan{suffix}", **{key: f"below/{data.name}"}))
    np.testing.assert_array_equal(image.array, ramp(GRID))


@pytest.mark.parametrize(
    "line",
    [b"ElementDataFile: /etc/passwd =", b"NDims = 4", b"DimSize = 1 1 1", b"no equals sign", b"  "],
)
def test_lines_that_metaio_reads_in_another_way_are_refused(tmp_path: Path, line: bytes) -> None:
    write_image(tmp_path / "scan.mha", ramp(GRID), GRID)
    content = (tmp_path / "scan.mha").read_bytes()
    at = content.index(b"NDims")
    (tmp_path / "scan.mha").write_bytes(content[:at] + b"NDims = 3\n" + line + content[at + len(b"NDims = 3") :])
    assert "cannot be read" in refusal(read_image, tmp_path / "scan.mha")


@pytest.mark.parametrize("line", [b"data file: /etc/passwd:=x", b"sizes: 1 1 1", b"unknown: x", b" ", b"x" * 70000])
def test_lines_that_nrrd_reads_in_another_way_are_refused(tmp_path: Path, line: bytes) -> None:
    write_image(tmp_path / "scan.nrrd", ramp(GRID), GRID)
    content = (tmp_path / "scan.nrrd").read_bytes()
    at = content.index(b"encoding")
    (tmp_path / "scan.nrrd").write_bytes(content[:at] + line + b"\n" + content[at:])
    refusal(read_image, tmp_path / "scan.nrrd")


def test_comments_and_key_value_pairs_of_nrrd_are_read_over(tmp_path: Path) -> None:
    write_image(tmp_path / "scan.nrrd", ramp(GRID), GRID)
    content = (tmp_path / "scan.nrrd").read_bytes()
    at = content.index(b"encoding")
    more = b"# made by hand: yes\nmodality:=CT: of the chest\n"
    (tmp_path / "scan.nrrd").write_bytes(content[:at] + more + content[at:])
    np.testing.assert_array_equal(read_image(tmp_path / "scan.nrrd").array, ramp(GRID))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("size", ["30000 30000 30000", "1000 1000 100"])
def test_sizes_that_the_file_cannot_hold_are_refused(tmp_path: Path, suffix: str, packed: bool, size: str) -> None:
    path = tmp_path / f"scan{suffix}"
    SimpleITK.WriteImage(to_sitk(ramp(GRID), GRID), str(path), useCompression=packed)
    message = refusal(read_image, changed(path, **{"DimSize" if suffix == ".mha" else "sizes": size}))
    assert any(words in message for words in ("free memory", "cut short or damaged")), message


@pytest.mark.filterwarnings("ignore:.*its place in the world is a guess")
def test_no_more_than_the_declared_size_is_inflated(tmp_path: Path) -> None:
    head = ["NRRD0004", "type: int16", "dimension: 3", "sizes: 12 16 20", "endian: little", "encoding: gzip", "", ""]
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(ramp(GRID).T.tobytes()), *(packer.compress(bytes(10**6)) for _ in range(1500))]
    (tmp_path / "scan.nrrd").write_bytes("\n".join(head).encode() + b"".join([*parts, packer.flush()]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(InputError):  # either will do
        np.testing.assert_array_equal(read_image(tmp_path / "scan.nrrd").array, ramp(GRID))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB, of 1.5 GB


@pytest.mark.parametrize(("suffix", "key"), [(".mha", "ElementSpacing"), (".mha", "Offset"), (".nrrd", "space_origin")])
def test_geometry_of_1e38_is_refused(tmp_path: Path, suffix: str, key: str) -> None:
    write_image(tmp_path / f"scan{suffix}", ramp(GRID), GRID)
    value = "(1e38,1,1)" if suffix == ".nrrd" else "1e38 1 1"
    assert "1e38" in refusal(read_image, changed(tmp_path / f"scan{suffix}", **{key: value}))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_names_that_are_not_utf8(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"scan{suffix}", ramp(GRID), GRID)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9" + suffix.encode()))
    (tmp_path / f"scan{suffix}").rename(odd)
    if suffix == ".nii.gz":
        np.testing.assert_array_equal(read_image(odd).array, ramp(GRID))
        return
    assert "a name that is not UTF-8" in refusal(read_image, odd)
    assert "a name that is not UTF-8" in refusal(write_image, odd, ramp(GRID), GRID)


def test_four_dimensional_metaimage_is_a_series(tmp_path: Path) -> None:
    frames = [to_sitk(ramp(GRID) + n, GRID) for n in range(3)]
    SimpleITK.WriteImage(SimpleITK.JoinSeries(frames, 5.0, 0.5), str(tmp_path / "scan.mha"))
    series = read_series(tmp_path / "scan.mha")
    assert series is not None
    assert series.time == (5.0, 0.5)
    assert series.grid.close_to(GRID, 1e-6)
    for n, frame in enumerate(series.frames()):
        np.testing.assert_array_equal(frame.array, ramp(GRID) + n)


@pytest.mark.parametrize("value", ["-1", "1 x 2", "x", ""])
def test_sizes_that_are_no_sizes_are_refused(tmp_path: Path, value: Any) -> None:
    write_image(tmp_path / "scan.mha", ramp(GRID), GRID)
    assert "its DimSize is" in refusal(as_image, changed(tmp_path / "scan.mha", DimSize=value or " "))


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("key", ["dim[0]", "pixdim[1]", "0008|0060", "ITK_FileNotes", "my key (old)"])
def test_the_keys_that_itk_carries_over_from_other_formats_are_no_fault(tmp_path: Path, suffix: str, key: str) -> None:
    image = to_sitk(ramp(GRID), GRID)
    image.SetMetaData(key, "MR")
    SimpleITK.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    assert key.encode() in (tmp_path / f"scan{suffix}").read_bytes()
    read = read_image(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(read.array, ramp(GRID))
    assert read.grid.close_to(GRID, 1e-6)


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", None])
def test_a_nrrd_that_does_not_say_where_the_patient_lies_is_read_with_a_warning(
    tmp_path: Path, space: str | None
) -> None:
    write_image(tmp_path / "scan.nrrd", ramp(GRID), GRID)
    lines = (tmp_path / "scan.nrrd").read_bytes().split(b"\n")
    at = next(n for n, line in enumerate(lines) if line.startswith(b"space:"))
    lines[at] = b"space dimension: 3" if space is None else b"space: " + space.encode()
    (tmp_path / "scan.nrrd").write_bytes(b"\n".join(lines))
    with pytest.warns(UserWarning, match="its place in the world is a guess"):
        read_image(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "right-anterior-superior"])
def test_a_nrrd_in_patient_space_gives_no_warning(tmp_path: Path, space: str) -> None:
    write_image(tmp_path / "scan.nrrd", ramp(GRID), GRID)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(changed(tmp_path / "scan.nrrd", space=space))


def test_a_nrrd_in_other_units_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "scan.nrrd", ramp(GRID), GRID)
    plain = (tmp_path / "scan.nrrd").read_bytes()
    for unit in ("cm", "mm"):
        units = f'\nspace units: "{unit}" "{unit}" "{unit}"\nencoding:'.encode()
        (tmp_path / "scan.nrrd").write_bytes(plain.replace(b"\nencoding:", units, 1))
        if unit == "cm":
            assert "'cm', expected mm" in refusal(read_image, tmp_path / "scan.nrrd")
    np.testing.assert_array_equal(read_image(tmp_path / "scan.nrrd").array, ramp(GRID))


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_a_header_that_is_compressed_as_a_whole_is_named_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    write_image(path, ramp(GRID), GRID)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert f"compressed by gzip as a whole, expected a plain {suffix} image" in refusal(read_image, path)
