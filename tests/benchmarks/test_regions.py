"""The tables of the comparison over regions."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from regions_table import by_region


def test_intervals_of_few_pairs_hold_only_what_a_measure_can_be() -> None:
    row = {"region": "r", "method": "corereg", "setting": "", "code": "", "status": "ok", "folds_percent": "0"}
    row |= {"dice_before": "0.5", "error_before_mm": "9", "seconds": "1", "peak_memory_mb": "1"}
    scores = ({"dice": "0.99", "error_mm": "0.1", "sdlogj": "0.01"}, {"dice": "0.9", "error_mm": "1", "sdlogj": "0.1"})
    (line,) = by_region([row | each for each in scores], ["r"])
    assert (line[4], line[6], line[7]) == ("0.945 (0.373 to 1.000)", "0.55 (0.00 to 6.27)", "0.055 (0.000 to 0.627)")
