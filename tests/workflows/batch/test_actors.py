"""Batches on a Ray cluster: a head without cores and two nodes of one core each, on the loopback interface."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from corereg.errors import InputError
from corereg.io.images.image import write_image
from corereg.workflows.batch.rows import read_rows
from corereg.workflows.batch.run import REGISTER, batch
from helpers import batches
from helpers.batches import STUB, as_csv
from helpers.pairs import pair

OBJECT_STORE_BYTES = 80 * 2**20
LIMIT_S = 5.0
"""Seconds for an attempt of the stub; machines may be busy."""

LOOPBACK = "127.0.0.1"
NODE = {"node_ip_address": LOOPBACK, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is an extra")
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # else drivers look beyond the loopback interface
        patch.setenv("PYTHONPATH", os.pathsep.join((str(Path(batches.__file__).parents[1]), *sys.path)))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, **NODE)
            yield made
        finally:
            made.shutdown()


def run(pairs: Any, out: Path, **options: Any) -> Any:
    return batch(pairs, out, **{"page": False, "method": STUB, **options})


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in read_rows(path)}


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*"))}


def attempts(out: Path, name: str) -> list[int]:
    path = out / f"{name}.attempts"
    return [int(pid) for pid in path.read_text("utf-8").split()] if path.exists() else []


@pytest.mark.slow
def test_a_cluster_gives_the_rows_and_bytes_of_one_process(tmp_path: Path, cluster: Any) -> None:
    names = ["a", "refused", "b", "broken", "dies", "flaky", "c", "stuck", *(f"p{n}" for n in range(6))]
    pairs = as_csv(tmp_path / "pairs.csv", names)
    alone = run(pairs, tmp_path / "alone", time_limit=LIMIT_S)
    found = run(pairs, tmp_path / "ray", time_limit=LIMIT_S, ray=cluster.address)
    assert (found.pairs, found.failed, found.resumed) == (len(names), 4, 0)
    expected, rows = rows_of(alone.rows), rows_of(found.rows)
    told = ("status", "attempts", "sdlogj", "key")
    assert {name: [row.get(key) for key in told] for name, row in rows.items()} == {
        name: [row.get(key) for key in told] for name, row in expected.items()
    }
    assert files(tmp_path / "ray") == files(tmp_path / "alone")
    assert {row["threads"] for row in rows.values() if row["status"] == "ok"} == {1}
    assert rows["stuck"]["error"] == f"ended after {LIMIT_S:g} s"
    assert run(pairs, tmp_path / "ray", ray=cluster.address, retries=0, time_limit=LIMIT_S).resumed == len(names) - 4


@pytest.mark.slow
def test_workers_live_on_and_both_nodes_work(tmp_path: Path, cluster: Any) -> None:
    names = [f"nap-{n}" for n in range(40)]
    run(as_csv(tmp_path / "pairs.csv", names), tmp_path / "out", ray=cluster.address)
    assert len({pid for name in names for pid in attempts(tmp_path / "out", name)}) == 2


@pytest.mark.slow
def test_registration_on_a_cluster_has_the_bytes_of_one_process(tmp_path: Path, cluster: Any) -> None:
    for image in pair():
        write_image(tmp_path / f"{image.name}.nii.gz", image.array, image.grid)
    (tmp_path / "pairs.csv").write_text("fixed,moving,name\nfixed.nii.gz,moving.nii.gz,p\n")
    quick: dict[str, Any] = {"method": REGISTER, "affine": "none", "refine_steps": 2, "keep": "warped,transform"}
    for name, options in (("alone", {"threads": 1}), ("ray", {"ray": cluster.address})):
        assert run(tmp_path / "pairs.csv", tmp_path / name, **quick, **options).failed == 0
    found = [{path.name: path.read_bytes() for path in (tmp_path / n / "p").glob("*.nii.gz")} for n in ("alone", "ray")]
    assert found[0] == found[1]
    assert set(found[0]) == {"warped.nii.gz", "transform.nii.gz"}


@pytest.mark.slow
def test_a_cluster_that_cannot_do_the_work_is_refused_and_leaves_nothing(tmp_path: Path, cluster: Any) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", ["a"])
    for options, words in (
        ({"ray_memory": 1e6}, r"workers that need 1 CPU, 1e\+15 memory.*--ray-memory"),
        ({"threads": 2}, "workers that need 2 CPU"),
        ({"ray_gpus": 0.5}, "0.5 GPU"),
        ({"method": "helpers.batches:absent"}, "could not start .*absent"),
    ):
        with pytest.raises(InputError, match=words):
            run(pairs, tmp_path / "out", ray=cluster.address, **options)
        if "method" not in options:
            assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path: Path, cluster: Any) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(InputError, match=f"got --ray {LOOPBACK}:{port}, where no Ray cluster answers"):
        run(as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out", ray=f"{LOOPBACK}:{port}")
    assert time.monotonic() - started < 20
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_node_that_is_killed_takes_no_pair_with_it(tmp_path: Path, cluster: Any) -> None:
    """Last, since it leaves the cluster with one node. Losing a node is no failure of a pair: none is tried again."""
    names, out = ["hangs", *(f"p{n}" for n in range(8))], tmp_path / "out"
    killed = []

    def kill_when_it_hangs(line: str) -> None:
        [pid] = attempts(out, "hangs")[:1] or [None]
        if pid and not killed:
            raylet = psutil.Process(pid).ppid()
            [node] = [
                each for each in cluster.list_all_nodes() if each.all_processes["raylet"][0].process.pid == raylet
            ]
            killed.append(pid)
            cluster.remove_node(node, allow_graceful=False)

    pairs = as_csv(tmp_path / "pairs.csv", names)
    found = run(pairs, out, ray=cluster.address, retries=0, progress=kill_when_it_hangs)
    assert (killed, found.failed) == (attempts(out, "hangs")[:1], 0)
    rows = rows_of(found.rows)
    assert set(rows) == set(names)
    assert {name: len(attempts(out, name)) for name in names} == {name: 2 if name == "hangs" else 1 for name in names}
    run(pairs, tmp_path / "alone", time_limit=LIMIT_S)
    assert files(out) == files(tmp_path / "alone")


def test_without_ray_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    before = dict(os.environ)
    with pytest.raises(InputError, match=r"Ray is not installed; pip install 'corereg\[ray\]'"):
        run(as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out", ray="auto")
    assert not (tmp_path / "out").exists()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ray_gpus": 0.5}, "--ray-gpus without --ray"),
        ({"ray_memory": 4.0}, "--ray-memory without --ray"),
        ({"ray": "auto", "ray_gpus": -1.0}, "--ray-gpus -1"),
        ({"ray": "auto", "ray_memory": float("nan")}, "--ray-memory nan"),
    ],
)
def test_wrong_options_of_a_cluster_are_refused_first(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
