"""A registration, files to files: checked before it starts, and in its folder only when everything is there."""

import json
import time
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from corereg.data.label_names import read_label_names
from corereg.errors import InputError
from corereg.geometry.kernels.threads import limited_threads
from corereg.io.atomic import atomic_folder, output_folder
from corereg.io.images.companions import beside, laid_on
from corereg.io.images.image import Image, read_labels, write_image
from corereg.io.images.label_names import numbered_like, warn_of_other_numbers
from corereg.io.json_files import finite
from corereg.io.places import check_distinct, refuse_to_replace
from corereg.io.transforms.formats.npz import write_compact
from corereg.method.config import RegisterConfig, with_register_options
from corereg.method.quality.thresholds import read_thresholds
from corereg.method.quality.verdict import with_overlap
from corereg.method.register import RegistrationResult, register
from corereg.method.register_settings import RegisterSettings
from corereg.provenance import recorded_warnings
from corereg.workflows.inputs import identified, read_scan
from corereg.workflows.outputs import DEFAULT_OUTPUTS, OUTPUTS, RESULT

__all__ = ["register_to_folder", "save_registration"]

TRUST_THE_IMAGE = "; or add --labels-use-image-grid, if the label map's header alone is wrong"


def register_to_folder(
    fixed: Path,
    moving: Path,
    directory: Path,
    *,
    fixed_labels: Path | None = None,
    moving_labels: Path | None = None,
    fixed_mask: Path | None = None,
    moving_mask: Path | None = None,
    initial: Path | None = None,
    fixed_points: Path | None = None,
    moving_points: Path | None = None,
    rigid_labels: Path | None = None,
    fixed_channels: Sequence[Path] = (),
    moving_channels: Sequence[Path] = (),
    fixed_series: str | None = None,
    moving_series: str | None = None,
    label_names: Path | Mapping[int, str] | None = None,
    labels_use_image_grid: bool = False,
    keep: Collection[str] = DEFAULT_OUTPUTS,
    threads: int | None = None,
    force: bool = False,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    **settings: Unpack[RegisterSettings],
) -> RegistrationResult:
    """Register two scans and write everything into a folder, as `corereg register` does.

    Args:
        fixed, moving: image files or DICOM folders.
        directory: made if it is not there.
        fixed_labels, moving_labels: label maps; the moving one is warped, both together are compared. They, the masks
            and `rigid_labels` may lie on grids of their own in the space of their images.
        fixed_mask, moving_mask: masks of the images; only voxels inside them count.
        initial: transform from fixed to moving to start from, in any format that `corereg convert` reads.
        fixed_points, moving_points: matched landmarks (.csv, .fcsv, .mrk.json).
        rigid_labels: label map of the fixed image whose structures move as rigid bodies.
        fixed_channels, moving_channels: further images of each side in the same world.
        fixed_series, moving_series: Series Instance UID to read from a DICOM folder, instead of the largest scan in it.
        label_names: names of the structures for the report and `guide_only`, or a JSON with them; by default those of
            the label maps.
        labels_use_image_grid: trust the images' headers where those of label maps of the same size differ. Voxels
            that lie on the image's along other axes are turned all the same.
        keep: names of `OUTPUTS` to write, in addition to result.json.
        threads: threads to compute with; by default all cores.
        force: replace the result of an earlier registration.
        command: what the report and result.json call the command.
        **settings: single settings, see `corereg.register`.

    Raises:
        InputError: before anything is computed, where an input or the folder cannot be used.
    """
    if fixed_labels is not None and moving_labels is None:
        raise InputError(
            f"got the fixed label map {fixed_labels} alone, expected a moving one to compare it with; "
            "add --moving-labels"
        )
    read_thresholds(with_register_options(RegisterConfig(), settings).thresholds)  # refused before anything is read
    names = read_label_names(label_names) if isinstance(label_names, Path) else label_names
    given = {
        "fixed": fixed,
        "moving": moving,
        "fixed_labels": fixed_labels,
        "moving_labels": moving_labels,
        "fixed_mask": fixed_mask,
        "moving_mask": moving_mask,
        "initial": initial,
        "fixed_points": fixed_points,
        "moving_points": moving_points,
        "rigid_labels": rigid_labels,
        **{f"fixed_channel_{n}": path for n, path in enumerate(fixed_channels, 1)},
        **{f"moving_channel_{n}": path for n, path in enumerate(moving_channels, 1)},
    }
    check_distinct([directory / name for name in (*OUTPUTS.values(), RESULT)], given.values())
    if not force:
        refuse_to_replace(directory, (*OUTPUTS.values(), RESULT))
    progress = progress or (lambda stage: None)
    progress("reading")
    started = time.perf_counter()
    with recorded_warnings() as early:
        images = {"fixed": read_scan(fixed, fixed_series), "moving": read_scan(moving, moving_series)}
        labels = {
            name: _labels_of(images, path, name, trusted=labels_use_image_grid)
            for name, path in (("fixed", fixed_labels), ("moving", moving_labels), ("rigid", rigid_labels))
        }
        if labels["fixed"] is not None and labels["moving"] is not None:
            labels["moving"] = numbered_like(labels["moving"], labels["fixed"])
    labels = {name: _named(each, names) for name, each in labels.items()}
    reading = time.perf_counter() - started
    with limited_threads(threads), output_folder(directory):
        result = register(
            images["fixed"],
            images["moving"],
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            initial=initial,
            fixed_labels=labels["fixed"],
            moving_labels=labels["moving"],
            fixed_points=fixed_points,
            moving_points=moving_points,
            rigid_labels=labels["rigid"],
            fixed_channels=fixed_channels,
            moving_channels=moving_channels,
            progress=progress,
            **settings,
        )
        # Not before: labels that are to guide are refused there.
        with recorded_warnings() as late:
            if labels["fixed"] is not None and labels["moving"] is not None:
                warn_of_other_numbers(labels["fixed"], labels["moving"])
        result = replace(
            result,
            seconds={**result.seconds, "read": reading + result.seconds["read"]},
            warnings=(*early, *result.warnings, *late),
        )
        progress("writing")
        metrics = save_registration(
            result,
            directory,
            fixed_labels=labels["fixed"],
            moving_labels=labels["moving"],
            label_names=names,
            keep=keep,
            command=command,
            extra={"inputs": identified(given, images)},
        )
    return replace(result, metrics=metrics, quality=with_overlap(result.quality, metrics))


def save_registration(
    result: RegistrationResult,
    directory: Path,
    *,
    fixed_labels: Image | None = None,
    moving_labels: Image | None = None,
    label_names: Mapping[int, str] | None = None,
    keep: Collection[str] = DEFAULT_OUTPUTS,
    command: str = "",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write result.json and the files that are kept.

    All files are written aside first and then put into the folder together; files of an earlier run are removed.

    Args:
        label_names: names of the structures for the report, before those of the label maps.
        keep: names of `OUTPUTS`; labels are warped only if there are any.
        extra: more entries for result.json.

    Returns: the metrics of result.json: the result's own, and with both label maps those of `overlap`.
    """
    started = time.perf_counter()
    with atomic_folder(directory, last=RESULT, obsolete=tuple(OUTPUTS.values())) as staging:
        warped = result.warped()
        summary = result.summary() | dict(extra or {}) | {"command": command}
        overlays: dict[str, Any] = {}
        with _one_by_one() as later:
            # One file after the other, for the memory's sake, while this thread draws the report.
            for name, write in _writers(result, warped).items():
                if name in keep:
                    later(write, staging / OUTPUTS[name])
            if moving_labels is not None:
                before, after = (t.apply(moving_labels, labels=True) for t in (result.before, result.transform))
                if "warped_labels" in keep:
                    write_image(staging / OUTPUTS["warped_labels"], after.array, result.fixed)
                overlays = {"moving_labels": before.array, "warped_labels": after.array}
                named = [each.label_names for each in (moving_labels, fixed_labels) if each is not None]
                overlays["label_names"] = dict(ChainMap(*map(dict, (label_names or {}, *named[::-1]))))
                if fixed_labels is not None:
                    from corereg.workflows.overlap import overlap  # the metrics take long to import

                    overlays["fixed_labels"] = fixed_labels.array
                    maps = fixed_labels, moving_labels, before, after
                    summary["metrics"] |= overlap(*maps, guiding=result.config.guidance.only)
                    summary["quality"] = with_overlap(result.quality, summary["metrics"]).as_dict()
            if "report" in keep:
                from corereg.workflows.pair_report import write_pair_report  # reports take long to import

                write_pair_report(staging / OUTPUTS["report"], result, warped, summary, command, overlays)
        summary["seconds"]["write"] = time.perf_counter() - started
        summary["seconds"]["total"] = sum(summary["seconds"].values())
        (staging / RESULT).write_text(json.dumps(finite(summary), indent=1, allow_nan=False, default=str) + "\n")
    return dict(summary["metrics"])


def _writers(result: RegistrationResult, warped: Image) -> dict[str, Callable[[Path], None]]:
    """Functions that write the outputs which a result always has, and its uncertainty if it has one."""
    writers: dict[str, Callable[[Path], None]] = {
        "transform": result.transform.save,
        "inverse_transform": result.inverse_transform.save,
        "transform_h5": result.transform.save,
        "compact": lambda path: write_compact(path, result.transform.stored()),
        "warped": lambda path: write_image(path, warped.array, result.fixed),
    }
    if (bound_mm := result.uncertainty) is not None:
        writers["uncertainty"] = lambda path: write_image(path, bound_mm, result.fixed)
    return writers


@contextmanager
def _one_by_one() -> Iterator[Callable[..., None]]:
    """Calls that another thread makes one after the other; when the block ends, all are done or the rest is dropped."""
    pool = ThreadPoolExecutor(1)
    calls: list[Future[Any]] = []
    try:
        yield lambda function, *arguments: calls.append(pool.submit(function, *arguments))
        for call in calls:
            call.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _labels_of(images: Mapping[str, Image], path: Path | None, name: str, *, trusted: bool) -> Image | None:
    """The fixed, moving or rigid label map: the fixed one is compared voxel by voxel, others will be resampled."""
    if path is None:
        return None
    own, other = ("moving", "fixed") if name == "moving" else ("fixed", "moving")
    image, elsewhere, what = images[own], images[other].grid, f"the {name} label map"
    place = laid_on if name == "fixed" else beside
    labels = read_labels(path, image.grid)
    return place(labels, image.grid, what=what, of=image.name, other=elsewhere, trusted=trusted, cure=TRUST_THE_IMAGE)


def _named(labels: Image | None, names: Mapping[int, str] | None) -> Image | None:
    """The label map with these names of its structures before its own."""
    return replace(labels, label_names={**labels.label_names, **names}) if labels and names else labels
