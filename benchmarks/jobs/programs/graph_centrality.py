"""Central nodes of random graphs, with networkx."""

from __future__ import annotations

import networkx


def work(seed: int) -> list[int]:
    graph = networkx.gnm_random_graph(24, 50, seed=seed)
    central = networkx.betweenness_centrality(graph)
    return sorted(central, key=lambda node: (-central[node], node))[:5]


def items() -> list[int]:
    return list(range(90))
