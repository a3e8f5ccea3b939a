"""Registers one pair with one tool. Run as a script by the tool's own Python, where this package is not installed.

    python drivers.py METHOD FIXED MOVING OUT [--affine none|auto] [--threads N] [--seed N] [--set NAME=VALUE ...]

Writes the displacement field OUT, which maps fixed points to moving points, in the tool's own convention, and OUT.json
with the seconds that the registration took, not counting the reading of the images. Each tool runs with its published
default settings; without an affine step it starts from the images as they lie in the world.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

Settings = dict[str, Any]


def ants_syn(fixed: Path, moving: Path, out: Path, affine: bool, settings: Settings) -> float:
    """`ants.registration` with its defaults: Mattes MI, 32 bins, 40 and 20 iterations, none at full resolution."""
    ants: Any = import_module("ants")
    images = [ants.image_read(str(path)) for path in (fixed, moving)]
    started = time.perf_counter()
    prefix = str(out.parent / "ants-")
    kind = "SyN" if affine else "SyNOnly"
    start = {} if affine else {"initial_transform": "Identity"}
    found = ants.registration(*images, type_of_transform=kind, outprefix=prefix, random_seed=settings["seed"], **start)
    seconds = time.perf_counter() - started
    field = ants.apply_transforms(*images, found["fwdtransforms"], compose=str(out.parent / "composed-"))
    Path(field).rename(out)
    return seconds


def elastix(fixed: Path, moving: Path, out: Path, affine: bool, settings: Settings) -> float:
    """The default parameter map `bspline`, optionally after `affine`."""
    itk: Any = import_module("itk")
    itk.set_nthreads(settings["threads"])
    images = [itk.imread(str(path), itk.F) for path in (fixed, moving)]
    parameters = itk.ParameterObject.New()
    for kind in ("affine", "bspline") if affine else ("bspline",):
        default = parameters.GetDefaultParameterMap(kind)
        default["RandomSeed"] = [str(settings["seed"])]
        default["WriteResultImage"] = ["false"]
        parameters.AddParameterMap(default)
    started = time.perf_counter()
    _, found = itk.elastix_registration_method(*images, parameter_object=parameters, log_to_console=False)
    seconds = time.perf_counter() - started
    itk.imwrite(itk.transformix_deformation_field(images[1], found), str(out))
    return seconds


def greedy(fixed: Path, moving: Path, out: Path, affine: bool, settings: Settings) -> float:
    """The manual's call: normalised cross-correlation over 5 x 5 x 5 voxels, 100, 50 and 10 iterations."""
    tool: Any = import_module("picsl_greedy").Greedy3D()
    warp, matrix = out.parent / "warp.nii.gz", out.parent / "affine.mat"
    common = f"-threads {settings['threads']} -m NCC 2x2x2 -i {fixed} {moving} -n 100x50x10"
    started = time.perf_counter()
    if affine:
        tool.execute(f"-d 3 -a -ia-image-centers {common} -o {matrix}")
    tool.execute(f"-d 3 {common} -o {warp}" + (f" -it {matrix}" if affine else ""))
    seconds = time.perf_counter() - started
    if affine:
        tool.execute(f"-d 3 -rf {fixed} -r {warp} {matrix} -rc {out}")
    else:
        warp.rename(out)
    return seconds


def niftyreg(fixed: Path, moving: Path, out: Path, affine: bool, settings: Settings) -> float:
    """`reg_f3d` with its defaults: normalised mutual information, 5-voxel B-splines; optionally after `reg_aladin`."""
    np, nibabel = (import_module(name) for name in ("numpy", "nibabel"))
    tools: Path = import_module("niftyreg").bin_path
    matrix, splines, field = (out.parent / name for name in ("affine.txt", "splines.nii.gz", "displacement.nii.gz"))
    # Without -res the tools write their warped image into the working directory.
    common = ["-ref", fixed, "-flo", moving, "-res", out.parent / "warped.nii.gz", "-omp", settings["threads"]]

    def call(tool: str, *words: object) -> None:
        subprocess.run([tools / tool, *map(str, words)], check=True)

    started = time.perf_counter()
    if affine:
        call("reg_aladin", *common, "-aff", matrix)
    call("reg_f3d", *common, "-cpp", splines, *(["-aff", matrix] if affine else []))
    seconds = time.perf_counter() - started
    call("reg_transform", "-ref", fixed, "-disp", splines, field)
    image: Any = nibabel.load(field)
    # NiftyReg's displacements are in RAS, ITK's in LPS.
    offsets = np.asarray(image.dataobj, np.float32) * np.float32([-1, -1, 1])
    in_lps = nibabel.Nifti1Image(offsets, image.affine, image.header)
    in_lps.header.set_intent("vector")
    nibabel.save(in_lps, out)
    return seconds


def convexadam(fixed: Path, moving: Path, out: Path, affine: bool, settings: Settings) -> float:
    """`convex_adam_pt` with its defaults, on MIND-SSC features. It has no affine step of its own."""
    np, nibabel, torch = (import_module(name) for name in ("numpy", "nibabel", "torch"))
    tool: Any = import_module("convexAdam.convex_adam_MIND")
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    images = [np.asarray(nibabel.load(path).dataobj, np.float32) for path in (fixed, moving)]
    started = time.perf_counter()
    disp_vox = tool.convex_adam_pt(*images)
    seconds = time.perf_counter() - started
    nibabel.save(nibabel.Nifti1Image(disp_vox.astype(np.float32), np.eye(4)), out)
    return seconds


def voxelmorph(fixed: Path, moving: Path, out: Path, affine: bool, settings: Settings) -> float:
    """The package's network, trained by `train_voxelmorph`; no affine step of its own."""
    np, nibabel, torch = (import_module(name) for name in ("numpy", "nibabel", "torch"))
    torch.set_num_threads(settings["threads"])
    predict = import_module("train_voxelmorph").predict  # next to this script
    started = time.perf_counter()
    offsets = predict(str(fixed), str(moving), Path(settings["model"]))
    seconds = time.perf_counter() - started
    image = nibabel.Nifti1Image(offsets[:, :, :, np.newaxis], nibabel.load(fixed).affine)
    image.header.set_intent("vector")
    nibabel.save(image, out)
    return seconds


def corereg(fixed: Path, moving: Path, out: Path, affine: bool, settings: Settings) -> float:
    """`corereg.register` with its defaults and the settings of --set."""
    package: Any = import_module("corereg")
    torch: Any = import_module("torch")
    torch.set_num_threads(settings["threads"])
    images = [package.read_image(path) for path in (fixed, moving)]
    own = {name: value for name, value in settings.items() if name != "threads"}
    started = time.perf_counter()
    result = package.register(*images, affine="auto" if affine else "none", **own)
    seconds = time.perf_counter() - started
    result.transform.save(out)
    return seconds


DRIVERS: dict[str, tuple[Callable[..., float], str]] = {
    "corereg": (corereg, "corereg"),
    "ants-syn": (ants_syn, "antspyx"),
    "elastix": (elastix, "itk-elastix"),
    "greedy": (greedy, "picsl-greedy"),
    "niftyreg": (niftyreg, "niftyreg"),
    "convexadam": (convexadam, "convexadam"),
    "voxelmorph": (voxelmorph, "voxelmorph"),
}
"""Name of a method -> its driver, and the distribution whose version is reported."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=sorted(DRIVERS))
    for name in ("fixed", "moving", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--affine", choices=("none", "auto"), default="none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    settings: Settings = {"threads": args.threads, "seed": args.seed}
    for item in args.set:
        name, _, value = item.partition("=")
        settings[name] = json.loads(value)
    driver, distribution = DRIVERS[args.method]
    seconds = driver(args.fixed, args.moving, args.out, args.affine == "auto", settings)
    report = {"seconds": seconds, "version": version(distribution)}
    args.out.with_name(args.out.name + ".json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
