"""Overhead of `corereg batch` for many pairs: time and memory of the driver with a stub in place of registration.

    python benchmarks/batch.py [--pairs 100000] [--jobs 1]

Prints seconds of a first run and of one that finds everything done, and the peak memory of the driver.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from corereg.workflows.batch.run import batch
from corereg.workflows.outputs import RESULT


def stub(pair: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """The measures of a registration that takes no time, and the file that shows that it is done."""
    folder.mkdir()
    (folder / RESULT).touch()
    return {"sdlogj": 0.05, "fold_percent": 0.0, "inverse_error_mean_mm": 0.03, "similarity_above_chance": 0.5}


def measure(pairs: int, jobs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.csv"
        scans = [f"scan{n}.nii.gz" for n in range(2 + math.isqrt(2 * pairs))]
        for name in scans:
            (table.parent / name).touch()
        with table.open("w") as file:
            file.write("fixed,moving,name\n")
            listed = islice(combinations(scans, 2), pairs)
            file.writelines(f"{fixed},{moving},pair{n}\n" for n, (fixed, moving) in enumerate(listed))
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            found = batch(table, Path(folder) / "out", jobs=jobs, method=f"{Path(__file__).stem}:stub", page=False)
            seconds.append(time.perf_counter() - started)
        assert (found.resumed, found.failed) == (pairs, 0)
    status = Path("/proc/self/status").read_text()  # getrusage would count the process that started this one
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "pairs": pairs,
        "ms_per_pair": 1000 * seconds[0] / pairs,
        "resume_seconds": seconds[1],
        "driver_peak_mib": kilobytes / 1024,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1)
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(measure(**vars(parser.parse_args()))))
