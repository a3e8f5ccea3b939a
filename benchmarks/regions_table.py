"""The rows of `regions.py` as tables: one by region, and the mean rank of each method with regions left out in turn."""

import math
from collections.abc import Iterator, Sequence

from corereg.evaluation.benchmark.peers.catalogue import OWN
from corereg.evaluation.statistics import FEW_PAIRS, Summary, summarise

__all__ = ["mean_ranks", "print_tables"]

Row = dict[str, str]
Label = tuple[str, str, str]
"""Method, setting, state of the code."""

HEADER = ("region", "method", "pairs", "Dice before", "Dice", "error before mm", "error mm", "SDlogJ", "folds %",
          "worse", "s, median", "MiB")  # fmt: skip
NO_SCORE = math.nan


def print_tables(rows: Sequence[Row], regions: Sequence[str]) -> None:
    print(f"\n| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|")
    for line in by_region(rows, regions):
        print(f"| {' | '.join(line)} |")
    print(
        f"\nMean over the pairs with its 95 % interval, Student's for fewer than {FEW_PAIRS} pairs and otherwise a "
        "bootstrap (10,000 resamples of the pairs). Worse: pairs that ended with less overlap or a larger error than "
        "they began with. Pairs that share a scan are not independent: there the intervals are optimistic. ConvexAdam "
        "has no affine step."
    )
    ranks = mean_ranks(rows, regions)
    if len(ranks) > 1:
        print("\n| method | mean rank | with one region left out |\n|---|---|---|")
        for label, (mean, low, high) in sorted(ranks.items(), key=lambda item: item[1]):
            print(f"| {words(label)} | {mean:.2f} | {low:.2f} to {high:.2f} |")


def by_region(rows: Sequence[Row], regions: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for region in regions:
        for label in labels(rows, region):
            these = [row for row in rows if row["region"] == region and label_of(row) == label]
            good = [row for row in these if row["status"] == "ok"]
            folds = summarise(numbers(good, "folds_percent")).mean
            yield (
                region,
                words(label),
                str(len(good)) if len(good) == len(these) else f"{len(good)} of {len(these)}",
                number(summarise(numbers(good, "dice_before")).mean, 3),
                interval(summarise(numbers(good, "dice"), bounds=(0.0, 1.0)), 3),
                number(summarise(numbers(good, "error_before_mm")).mean, 2),
                interval(summarise(numbers(good, "error_mm"), bounds=(0.0, math.inf)), 2),
                interval(summarise(numbers(good, "sdlogj"), bounds=(0.0, math.inf)), 3),
                number(folds, 3),
                str(sum(map(ended_worse, good))),
                number(summarise(numbers(good, "seconds")).median, 1),
                number(max(numbers(good, "peak_memory_mb"), default=NO_SCORE), 0),
            )


def mean_ranks(rows: Sequence[Row], regions: Sequence[str]) -> dict[Label, tuple[float, float, float]]:
    """Mean rank over the regions, and its least and largest value with one region left out.

    A region counts by its Dice, or by its error where it has no labels, over the pairs that every method has; methods
    without any row in one of the regions are not ranked.
    """
    present = [region for region in regions if any(row["region"] == region for row in rows)]
    everywhere = [label for label in labels(rows) if all(label in labels(rows, region) for region in present)]
    if len(everywhere) < 2:
        return {}
    by_place = [ranks_in(rows, region, everywhere) for region in present]
    found = {}
    for label in everywhere:
        own = [ranks[label] for ranks in by_place]
        without = [(sum(own) - rank) / (len(own) - 1) for rank in own] if len(own) > 1 else own
        found[label] = (sum(own) / len(own), min(without), max(without))
    return found


def ranks_in(rows: Sequence[Row], region: str, compared: Sequence[Label]) -> dict[Label, float]:
    """1 for the best; equal scores share their mean rank; a method that fails on every pair comes last."""
    scores: dict[Label, dict[str, float]] = {label: {} for label in compared}
    for row in rows:
        if row["region"] == region and row["status"] == "ok" and label_of(row) in scores:
            scores[label_of(row)][row["pair"]] = float(row["dice"]) if row["dice"] else -float(row["error_mm"])
    pairs = set.intersection(*(set(own) for own in scores.values() if own)) if any(scores.values()) else set()
    means = {
        label: sum(own[pair] for pair in pairs) / len(pairs) if own and pairs else -math.inf
        for label, own in scores.items()
    }
    return {
        label: 1 + sum(other > mean for other in means.values()) + (sum(o == mean for o in means.values()) - 1) / 2
        for label, mean in means.items()
    }


def labels(rows: Sequence[Row], region: str | None = None) -> list[Label]:
    """What was run, the package first."""
    found = dict.fromkeys(label_of(row) for row in rows if region in (None, row["region"]))
    return sorted(found, key=lambda label: (label[0] != OWN, label[0]))


def label_of(row: Row) -> Label:
    return row["method"], row["setting"], row["code"]


def words(label: Label) -> str:
    method, setting, code = label
    return " ".join(filter(None, (method, setting, code and f"({code})")))


def numbers(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row[name]]


def number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def interval(summary: Summary, digits: int) -> str:
    if math.isnan(summary.low):
        return number(summary.mean, digits)
    return f"{summary.mean:.{digits}f} ({summary.low:.{digits}f} to {summary.high:.{digits}f})"


def ended_worse(row: Row) -> bool:
    less = bool(row["dice"]) and float(row["dice"]) < float(row["dice_before"])
    return less or (bool(row["error_mm"]) and float(row["error_mm"]) > float(row["error_before_mm"]))
