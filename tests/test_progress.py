"""How work reports where it is: percentages, the time left, and lines now and then."""

import pytest

from corereg.progress import MANY_STEPS, Meter, Occasionally, Step, counted, duration, reporting


class Clock:
    """Stands in for the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_time_left_follows_from_the_steps_that_are_done(clock: Clock) -> None:
    meter = Meter()
    assert meter.words(Step("pair a", 0, 4)) == "pair a, 0%"
    clock.now = 30.0
    assert meter.words(Step("pair b", 1, 4)) == "pair b, 25%, 1 min 30 s left"
    clock.now = 50.0
    assert meter.words(Step("pair c", 2, 4)) == "pair c, 50%, 50 s left"


def test_first_of_many_steps_is_not_timed_because_it_may_compile(clock: Clock) -> None:
    meter = Meter()
    meter.words(Step("refining", 0, MANY_STEPS))
    clock.now = 60.0
    assert meter.words(Step("refining", 1, MANY_STEPS)) == "refining, 10%"
    clock.now = 62.0
    assert meter.words(Step("refining", 2, MANY_STEPS)) == "refining, 20%, 16 s left"


def test_next_stage_is_timed_by_itself(clock: Clock) -> None:
    meter = Meter()
    for done in range(3):
        clock.now = 100.0 * done
        meter.words(Step("slow", done, 3))
    assert meter.words(Step("fast", 0, 3)) == "fast, 0%"
    clock.now += 1.0
    assert meter.words(Step("fast", 1, 3)) == "fast, 33%, 2 s left"


def test_lines_come_after_a_minute_and_then_every_thirty_seconds(clock: Clock) -> None:
    lines: list[str] = []
    progress = Occasionally(lines.append)
    for second in range(130):
        clock.now = float(second)
        progress(f"at {second} s")
    assert lines == ["at 60 s", "at 90 s", "at 120 s"]


def test_counted_loop_reports_each_step_to_whoever_listens() -> None:
    heard: list[str] = []
    assert list(counted("ab", "reading")) == ["a", "b"]
    with reporting(heard.append):
        assert list(counted("ab", "reading")) == ["a", "b"]
    assert heard == ["reading, step 1 of 2", "reading, step 2 of 2"]
    assert [(step.done, step.total) for step in heard if isinstance(step, Step)] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.6, "1 min 0 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")]
)
def test_durations_read_naturally(seconds: float, words: str) -> None:
    assert duration(seconds) == words
