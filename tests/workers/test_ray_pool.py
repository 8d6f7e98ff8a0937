"""Jobs on a real Ray cluster of two nodes, which share no files with the search."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import ray

from nas.distillation.settings import DistillSettings
from nas.terminal.errors import UserError
from nas.workers.job import Job, Segment
from nas.workers.ray_pool import RayPool
from tests.support.errors import refusal
from tests.support.ray_nodes import RayCluster, ray_cluster
from tests.support.small_targets import CONFIG, OTHER_CONFIG, make_targets

STEPS = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(nodes=2) as found:
        yield found


def make_jobs(folder: Path, until: int) -> list[Job]:
    """Two distillations; the paths of their files are of this process's folder, so no other process finds them."""
    settings = DistillSettings(STEPS, report_every=20, checkpoint_every=20)
    targets = make_targets(folder=Path("targets"))
    folder.mkdir(exist_ok=True)
    return [
        Job(config, settings, until, targets, "cpu", folder / f"{config.digest()}.pt")
        for config in (CONFIG, OTHER_CONFIG)
    ]


def same(one: Segment, other: Segment) -> bool:
    """Whether two distillations went the same way, to the last bit."""
    return (one.curve, one.failure) == (other.curve, other.failure)


@pytest.mark.slow  # on a slow machine one node may run both of the first jobs
def test_jobs_of_a_lost_node_run_again(cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = [job() for job in make_jobs(Path("here"), STEPS)]
    with closing(RayPool(cluster.address)) as pool:
        assert (pool.slots, pool.device) == (2, "cpu")
        first = [pool.submit(job) for job in make_jobs(Path("there"), 20)]
        assert [len(future.result().curve) for future in first] == [1, 1]
        # Either node had one of them, and has fetched what it needs.
        for node in range(2):
            (fetched,) = cluster.cache(node).glob("targets/*")
            names = {path.name: path.read_bytes() for path in fetched.iterdir()}
            assert names == {path.name: path.read_bytes() for path in Path("targets").iterdir()}
        futures = [pool.submit(job) for job in make_jobs(Path("there"), STEPS)]
        while ray.available_resources().get("CPU", 0):
            time.sleep(0.01)
        cluster.kill_node()
        found = [future.result() for future in futures]
        assert all(same(one, other) for one, other in zip(found, expected, strict=True))
        # As checkpoints are, from the next rung on: nothing was lost, and nothing begun anew.
        assert all(segment.curve[:1] == future.result().curve for segment, future in zip(found, first, strict=True))
        assert pool.slots == 1


@pytest.mark.parametrize("address", ["127.0.0.2:1", "nonsense", "ray://127.0.0.2:1"])
def test_no_cluster_is_one_line(address: str) -> None:
    assert "--ray" in refusal(lambda: RayPool(address)) or address in refusal(lambda: RayPool(address))


def test_what_a_job_raises_is_raised_here(cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job, _ = make_jobs(Path("there"), STEPS)
    job.checkpoint.write_bytes(b"damaged")
    with closing(RayPool(cluster.address, slots=5)) as pool:
        assert pool.slots == 5
        with pytest.raises(UserError, match="not a readable checkpoint"):
            pool.submit(job).result()
