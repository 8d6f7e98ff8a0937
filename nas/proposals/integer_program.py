"""The best paths through a graph within a budget, by integer programming (HiGHS)."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from nas.proposals.stage_graph import END, START, Edge

_SECONDS = 20.0
"""Most seconds for one path; the best that was found until then counts."""


def best_paths(edges: Sequence[Edge], most_ms: float, count: int, distance: int = 2) -> list[list[Edge]]:
    """Up to `count` paths from start to end, those of the largest gains within the budget, best first.

    Args:
        edges: of a graph without cycles.
        most_ms: most milliseconds of a path.
        count: number of paths.
        distance: number of decisions in which every two of them differ at least.
    """
    found: list[list[Edge]] = []
    while len(found) < count:
        path = _solve(edges, most_ms, found, distance)
        if path is None:
            break
        found.append(path)
    return found


def _solve(
    edges: Sequence[Edge], most_ms: float, excluded: Sequence[Sequence[Edge]], distance: int
) -> list[Edge] | None:
    """The best path that is far enough from others; None if there is none."""
    if not edges:
        return None
    limits = [_flow(edges), LinearConstraint(np.array([[edge.milliseconds for edge in edges]]), -np.inf, most_ms)]
    for path in excluded:
        decided = {decision for edge in path for decision in edge.decisions}
        shared = np.array([[len(decided.intersection(edge.decisions)) for edge in edges]])
        limits.append(LinearConstraint(shared, -np.inf, len(decided) - distance))
    solved = milp(
        c=[-edge.gain for edge in edges],
        integrality=np.ones(len(edges)),
        bounds=Bounds(0, 1),
        constraints=limits,
        options={"time_limit": _SECONDS},
    )
    if solved.x is None:
        return None
    taken = {edge.source: edge for edge, value in zip(edges, solved.x, strict=True) if value > 0.5}
    path = [taken[START]]
    while path[-1].target != END:
        path.append(taken[path[-1].target])
    return path


def _flow(edges: Sequence[Edge]) -> LinearConstraint:
    """As many edges into every node as out of it, and one out of the start."""
    nodes = list(dict.fromkeys(node for edge in edges for node in (edge.source, edge.target)))
    row = {node: index for index, node in enumerate(nodes)}
    columns = list(range(len(edges)))
    out, into = [row[edge.source] for edge in edges], [row[edge.target] for edge in edges]
    values = [1.0] * len(edges) + [-1.0] * len(edges)
    table = coo_array((values, (out + into, columns + columns)), shape=(len(nodes), len(edges)))
    balance = np.array([float(node == START) - float(node == END) for node in nodes])
    return LinearConstraint(table.tocsr(), balance, balance)
