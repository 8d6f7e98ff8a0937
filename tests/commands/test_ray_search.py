"""A search on a real Ray cluster of two nodes, one of which is killed."""

from collections.abc import Iterator

import pytest

from tests.commands.test_kill import check_search_is_complete
from tests.support.commands import TIMEOUT, Inputs, Shell, make_run, wait_for_file
from tests.support.ray_nodes import RayCluster, ray_cluster


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(nodes=2) as found:
        yield found


def test_a_node_of_the_cluster_is_lost(shell: Shell, inputs: Inputs, cluster: RayCluster) -> None:
    make_run(inputs)
    words = inputs.arguments(
        "--run", "R", "--ray", cluster.address, "--trials", "4", "--steps", "6", "--time-limit", "2h"
    )
    with shell.start("-m", "nas.search", *words) as process:
        wait_for_file(shell.folder, "R/trials/*/config.json")
        cluster.kill_node()
        stdout, stderr = process.communicate(timeout=3 * TIMEOUT)
    assert process.returncode == 0, stderr
    assert "4 of 4 trained" in stdout
    check_search_is_complete(shell.folder / "R", trained=4)
