"""Register the validation pairs of a Learn2Reg data set at two smoothness weights; score both and compare.

python examples/evaluate_and_compare.py DATASET.json out
"""

import argparse
from pathlib import Path

import corereg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="the dataset JSON, with labels")
    parser.add_argument("out", type=Path, help="folder for the displacement fields")
    parser.add_argument("--regularisation", type=float, nargs=2, default=[3.0, 12.0], metavar="R")
    args = parser.parse_args()

    dataset = corereg.read_dataset(args.dataset)
    folders = [args.out / f"R{weight:g}" for weight in args.regularisation]
    for folder, weight in zip(folders, args.regularisation, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        for pair in dataset.validation:
            fixed, moving = (dataset.scans[index] for index in pair)
            result = corereg.register(fixed.image, moving.image, affine="none", regularisation=weight)
            # The challenge's names: case and modality of the fixed scan, then those of the moving scan.
            result.transform.save(folder / f"disp_{fixed.name[-9:]}_{moving.name[-9:]}.nii.gz")

    evaluation = corereg.evaluate(args.dataset, folders[0], against=folders[1], split="validation")
    evaluation.write_json(args.out / "evaluation.json")
    for name in ("dice", "sdlogj", "fold_percent"):
        summary, difference = evaluation.summary[name], evaluation.comparisons[name]
        print(f"{name}: {summary.mean:.3f} ({summary.low:.3f} to {summary.high:.3f}) at {folders[0].name}", end="; ")
        print(f"{difference.difference:+.3f} against {folders[1].name}, p = {difference.p:.2g}")


if __name__ == "__main__":
    main()
