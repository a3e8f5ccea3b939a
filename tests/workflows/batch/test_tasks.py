"""The order of tasks, with a team that computes nothing."""

from collections.abc import Iterator
from pathlib import Path

from corereg.workflows.batch.pairs import Pair
from corereg.workflows.batch.tasks import Outcome, Task, run_tasks

ROOM = 3


class FakeTeam:
    """Ends its first task, as the scripted outcomes say, or well."""

    def __init__(self, scripted: dict[str, list[Outcome]] | None = None) -> None:
        self.tasks: list[Task] = []
        self.scripted = scripted or {}
        self.begun: list[str] = []

    def has_room(self) -> bool:
        return len(self.tasks) < ROOM

    def begin(self, task: Task) -> None:
        assert self.has_room()
        self.begun.append(task.pair.name)
        self.tasks.append(task)

    def running(self) -> list[Task]:
        return list(self.tasks)

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        task = self.tasks.pop(0)
        script = self.scripted.get(task.pair.name)
        yield task, script.pop(0) if script else Outcome({"status": "ok"})

    def kill(self) -> None:
        self.tasks.clear()


def tasks(names: Iterator[str], folder: Path) -> Iterator[Task]:
    return (Task(Pair(fixed=Path("f"), moving=Path("m"), name=name), folder / name) for name in names)


def test_no_more_pairs_are_taken_from_the_list_than_there_are_workers_and_one(tmp_path: Path) -> None:
    taken = 0

    def names() -> Iterator[str]:
        nonlocal taken
        for n in range(50):
            taken += 1
            yield str(n)

    for done, _ in enumerate(run_tasks(tasks(names(), tmp_path), FakeTeam(), retries=0)):
        assert taken - done <= ROOM + 1
    assert taken == 50


def test_lost_machines_do_not_use_up_the_retries_of_a_pair_but_not_forever(tmp_path: Path) -> None:
    lost = Outcome({"status": "worker died"}, again=True, lost=True)
    failed = Outcome({"status": "failed"}, again=True)
    team = FakeTeam({"unlucky": [lost] * 3, "bad": [lost, failed, failed], "killer": [lost] * 100})
    names = iter(["unlucky", "a", "bad", "killer"])
    rows = {task.pair.name: row["status"] for task, row in run_tasks(tasks(names, tmp_path), team, retries=0)}
    assert rows == {"unlucky": "ok", "a": "ok", "bad": "failed", "killer": "worker died"}
    assert {name: team.begun.count(name) for name in rows} == {"unlucky": 4, "a": 1, "bad": 2, "killer": 6}
