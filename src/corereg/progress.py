"""How long work reports where it is: functions call `progress` with a text, and a `Step` also counts what is done."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["Meter", "Occasionally", "Progress", "Step", "counted", "duration", "ignore", "reporting"]

Progress = Callable[[str], None]

LINES_EVERY_S = 30.0
"""Between two lines of a log, which stands in for the bar where there is no terminal."""

FIRST_LINE_S = 60.0
"""Work that is done by then logs nothing."""

MANY_STEPS = 10
"""From this many on, the first one is not timed: it may compile kernels."""

Item = TypeVar("Item")


class Step(str):
    """A text about one of several equal steps.

    Args:
        done: finished steps.
        total: all steps.
        seconds_left: if it is known better than by the time of the steps so far, as where steps differ.
    """

    done: int
    total: int
    seconds_left: float | None

    def __new__(cls, text: str, done: int, total: int, seconds_left: float | None = None) -> "Step":
        step = super().__new__(cls, text)
        step.done, step.total, step.seconds_left = done, total, seconds_left
        return step


def ignore(text: str) -> None:
    """The progress of work that nobody watches."""


_listener: ContextVar[Progress] = ContextVar("listener", default=ignore)


@contextmanager
def reporting(progress: Progress) -> Iterator[None]:
    """Let the loops of the block that are `counted` report to `progress`, however deep they lie."""
    token = _listener.set(progress)
    try:
        yield
    finally:
        _listener.reset(token)


def counted(items: Sequence[Item], stage: str) -> Iterator[Item]:
    """The items one by one, each reported as a step of the stage."""
    progress = _listener.get()
    for done, item in enumerate(items):
        progress(Step(f"{stage}, step {done + 1} of {len(items)}", done, len(items)))
        yield item


class Meter:
    """Measures how fast steps are done."""

    def __init__(self) -> None:
        self.total = self.first = self.done = 0
        self.since, self.starting = 0.0, False

    def seconds_left(self, step: Step) -> float | None:
        """Until all steps are done; None while that is unknown."""
        now = time.monotonic()
        if step.total != self.total or step.done < self.done:
            self.total, self.first, self.since, self.starting = step.total, step.done, now, step.total >= MANY_STEPS
        elif self.starting and step.done > self.first:
            self.first, self.since, self.starting = step.done, now, False
        self.done = step.done
        if step.seconds_left is not None:
            return step.seconds_left
        finished = step.done - self.first
        return (step.total - step.done) * (now - self.since) / finished if finished else None

    def words(self, text: str) -> str:
        """The text, and of a step the percentage and the time left."""
        if not isinstance(text, Step):
            return text
        return ", ".join(filter(None, (text, f"{text.done / text.total:.0%}", self.left(text))))

    def left(self, step: Step) -> str:
        """`40 s left`; empty while that is unknown."""
        seconds = self.seconds_left(step)
        return "" if seconds is None else f"{duration(seconds)} left"


class Occasionally:
    """A progress that writes a line now and then.

    Args:
        write: receives the lines.
        first_s: seconds before the first one.
    """

    def __init__(self, write: Progress, *, first_s: float = FIRST_LINE_S) -> None:
        self.write, self.meter = write, Meter()
        self.due = time.monotonic() + first_s

    def __call__(self, text: str) -> None:
        words = self.meter.words(text)
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + LINES_EVERY_S
            self.write(words)


def duration(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s` or `40 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
