"""How long a run still takes: the work that is left of each kind, times the seconds that one unit takes."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence

__all__ = ["PAIR", "STEP", "VALIDATION", "Forecast"]

PAIR, STEP, VALIDATION = "pair", "step", "validation"
KINDS = (PAIR, STEP, VALIDATION)
"""Kinds of work in a cycle, in their order: pairs to label, steps, pairs to validate on."""

AVERAGED_UNITS = 20
"""Units over which the speed is averaged."""


class Forecast:
    """Counts a run's work and measures how fast each kind is done.

    Args:
        cycles: units of each kind in each cycle.
    """

    def __init__(self, cycles: Sequence[Mapping[str, int]]) -> None:
        self.cycles = [{kind: cycle.get(kind, 0) for kind in KINDS} for cycle in cycles]
        self.tried: dict[str, float] = {}
        """Seconds of one unit as tried before the run; measurements replace them."""
        self.measured: dict[str, deque[float]] = {kind: deque(maxlen=AVERAGED_UNITS) for kind in KINDS}
        self.place, self.done, self.since = (0, PAIR), 0, math.nan

    def reach(self, cycle: int, kind: str, done: int) -> None:
        """Note that this many units of a kind are done in a cycle, and all before them."""
        now = time.perf_counter()
        if self.place == (cycle, kind) and done > self.done and not math.isnan(self.since):
            self.measured[kind].append((now - self.since) / (done - self.done))
        self.place, self.done, self.since = (cycle, kind), done, now

    def seconds(self, kind: str) -> float:
        """Seconds of one unit; NaN while they are unknown."""
        times = self.measured[kind]
        return sum(times) / len(times) if times else self.tried.get(kind, math.nan)

    def left(self, kind: str) -> int:
        """Units of a kind that are left in the run."""
        cycle, current = self.place
        if cycle == len(self.cycles):  # a finished run that is resumed
            return 0
        own = self.cycles[cycle][kind]
        place = KINDS.index(kind) - KINDS.index(current)
        rest = own if place > 0 else own - self.done if place == 0 else 0
        return rest + sum(later[kind] for later in self.cycles[cycle + 1 :])

    def seconds_left(self) -> float:
        """Seconds until the run is finished; NaN while the speed of some of its work is unknown."""
        return sum((left * self.seconds(kind) for kind in KINDS if (left := self.left(kind))), start=0.0)
