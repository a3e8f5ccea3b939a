"""Whole registrations with default settings, on a GPU and on the CPU beside it.

    python benchmarks/gpu_pairs.py FOLDER [--large]      # needs nibabel, but no other package that reads images

Pairs of `shared/data`: hippocampi, heads and necks, T1 heads; with --large also a head and neck interpolated to 1 mm
(23 million voxels). Each runs twice on the GPU, since the first time compiles, then on the CPU. Prints seconds in all
and by stage, the peak of GPU memory, and how far the displacements of the two devices are apart inside the body.
"""

import argparse
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

import corereg
from corereg.geometry.displacement import Displacement

PAIRS = {
    "hippocampi": ("hippocampus_mr/images/hippocampus_003", "hippocampus_mr/images/hippocampus_004"),
    "heads and necks": ("headneck/imagesTr/HeadNeckCT_0075_0000", "headneck/imagesTr/HeadNeckCT_0076_0000"),
    "heads": ("brain/mni152", "brain/colin27"),
}
FINER = 3


def finer(path: Path, folder: Path) -> Path:
    """The scan on voxels of a third of their size, in the same place."""
    image = nib.load(path)
    array = ndimage.zoom(image.get_fdata(dtype=np.float32), FINER, order=1, grid_mode=True, mode="nearest")
    affine = image.affine.copy()
    affine[:3, :3] /= FINER
    affine[:3, 3] += image.affine[:3, :3] @ np.full(3, (1 - FINER) / (2 * FINER))
    nib.save(nib.Nifti1Image(array.astype(np.int16), affine), folder / path.name)
    return folder / path.name


def apart_mm(one: Displacement, other: Displacement) -> str:
    distance = (one.disp_vox.cpu() - other.disp_vox.cpu()).permute(1, 2, 3, 0).double().numpy() * one.grid.spacing
    lengths = np.linalg.norm(distance, axis=-1)
    return f"{lengths.mean():.3f}, {np.quantile(lengths, 0.99):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--large", action="store_true")
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| pair | working grid | device | s | of which affine, refine | peak MiB | GPU to CPU: mean, 99 % (mm) |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pairs = {name: [args.data / f"{scan}.nii.gz" for scan in scans] for name, scans in PAIRS.items()}
        if args.large:
            pairs["heads and necks, 1 mm"] = [finer(path, Path(folder)) for path in pairs["heads and necks"]]
        for name, (fixed, moving) in pairs.items():
            found = []
            for run in ("cuda, first", "cuda", "cpu, first", "cpu"):
                device = run.partition(",")[0]
                torch.cuda.reset_peak_memory_stats()
                start = time.perf_counter()
                result = corereg.register(fixed, moving, device=device)
                seconds = time.perf_counter() - start
                found.append(result.deformation)
                stages = ", ".join(f"{result.seconds[stage]:.2f}" for stage in ("affine", "refine"))
                peak = f"{torch.cuda.max_memory_allocated() >> 20}" if device == "cuda" else ""
                shape = " x ".join(map(str, result.refined.grid.shape))
                apart = apart_mm(found[1], found[-1]) if run == "cpu" else ""
                print(f"| {name} | {shape} | {run} | {seconds:.2f} | {stages} | {peak} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
