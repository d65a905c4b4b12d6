"""Shortest ways through one large graph, with networkx."""

from __future__ import annotations

import networkx

GRAPH = networkx.connected_watts_strogatz_graph(900, 6, 0.1, seed=5)
for number, (one, other) in enumerate(GRAPH.edges):
    GRAPH.edges[one, other]["weight"] = number * 37 % 101 + 1


def work(ends: tuple[int, int]) -> int:
    return int(networkx.dijkstra_path_length(GRAPH, *ends))


def items() -> list[tuple[int, int]]:
    return [(n * 7 % 900, (n * 31 + 400) % 900) for n in range(130)]
