"""Train a model on a folder of unlabelled scans, then register two scans with it.

python examples/train_on_a_folder.py scans out --recipe tiny
"""

import argparse
from pathlib import Path

import corereg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, help="folder of scans, or any other data set that corereg reads")
    parser.add_argument("out", type=Path, help="folder of the run; must not hold another run")
    parser.add_argument("--recipe", default="default", help="default, or tiny for a first try of a few minutes")
    parser.add_argument("--cycles", type=int, help="rounds of pseudo-labels and training; by default the recipe's")
    parser.add_argument("--steps", type=int, help="training steps in each cycle; by default the recipe's")
    args = parser.parse_args()

    # Any setting of the run can be given by name; `corereg train --show-config` lists them.
    chosen = {"cycles": args.cycles, "steps_per_cycle": args.steps}
    settings = {name: value for name, value in chosen.items() if value is not None}
    run = corereg.train(args.scans, args.out, recipe=args.recipe, settings=settings, log=print)
    print("Trained weights:", run.model)

    dataset = corereg.read_dataset(args.scans)
    fixed, moving = (dataset.scans[index] for index in dataset.training[0])
    result = corereg.register(fixed.image, moving.image, model=str(run.model))
    result.transform.save(args.out / "first_pair.nii.gz")
    print(
        f"{fixed.name} <- {moving.name}: SDlogJ {result.metrics['sdlogj']:.3f} in {sum(result.seconds.values()):.1f} s"
    )


if __name__ == "__main__":
    main()
