"""Which nodes of a graph may stay on the CPU when a card runs it: those that carry no data.

The runtime leaves nodes on the CPU that its provider can't run, and says nothing. Then a "card" may
do a fraction of the work, with a copy forth and back at each such node. Nodes that compute with
extents of tensors belong on the CPU, and the runtime puts them there on purpose. `magika` has a
Cast and a Slice of extents there, `minilm` a Shape, and a Cast of its mask, which comes as int64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: Operators that are harmless on the CPU wherever they are, and why.
HARMLESS: Mapping[str, str] = {
    "Shape": "reads the extents of a tensor and not its content",
    "Size": "reads the extents of a tensor and not its content",
}
#: Operators that are harmless where the graph's file doesn't have a node of that name, because the
#: runtime has made it.
HARMLESS_MADE: Mapping[str, str] = {
    **HARMLESS,
    "Cast": "of an extent, or of an input whose type a card does not have, such as int64",
    "Slice": "of extents",
}


class Node(NamedTuple):
    """A node of a graph."""

    operator: str
    name: str

    def __str__(self) -> str:
        """In words, such as ``Conv 'conv1'``."""
        return f"{self.operator} {self.name!r}"


def nodes_on(session: Any, provider: str) -> list[Node]:
    """The nodes that a session has given to a provider, before they are fused."""
    return [
        Node(node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == provider
        for node in part.get_nodes()
    ]


def carrying_data(nodes: Iterable[Node], path: Path) -> list[Node]:
    """The nodes among these that compute with data, by the graph in the file ``path``.

    A node does not if all it takes are extents and constants, or if it changes the type of one of
    the graph's inputs.
    """
    nodes = list(nodes)
    if not nodes:
        return []
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    inputs = {it.name for it in graph.input} - {it.name for it in graph.initializer}
    fixed = {it.name for it in graph.initializer} | {""}
    harmless: dict[str, bool] = {}
    for node in graph.node:  # a graph lists its nodes after those they depend on
        is_fixed = node.op_type in HARMLESS or all(name in fixed for name in node.input)
        if is_fixed:
            fixed.update(node.output)
        is_harmless = is_fixed or (node.op_type == "Cast" and node.input[0] in inputs)
        # Several nodes may have one name, or none.
        harmless[node.name] = is_harmless and harmless.get(node.name, True)
    return [node for node in nodes if not harmless.get(node.name, node.operator in HARMLESS_MADE)]
