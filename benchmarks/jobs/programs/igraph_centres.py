"""Central nodes of sparse graphs, with igraph."""

from __future__ import annotations

import random

import igraph


def work(seed: int) -> list[float]:
    source = random.Random(seed)
    edges = [(source.randrange(300), source.randrange(300)) for _ in range(500)]
    graph = igraph.Graph(300, edges).simplify()
    return sorted(graph.betweenness(cutoff=3), reverse=True)[:3]


def items() -> list[int]:
    return list(range(120))
