"""The blocks of any network: what lies between two places that everything must pass.

A place through which every path from the images to the logits goes is where "what the network
still knows" can be asked with one tensor: the output of a residual block (inside it the skip path
goes round), each layer of a plain network, a transition of a dense one.
"""

import torch
from torch import Tensor, nn

from orthounlearn.models.graph import ForwardGraph, Node


def block_outputs(net: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Return the modules that put out the blocks' results, in the order of the forward pass.

    A block has at least one convolution. Its result is taken as late as possible: after
    activation and pooling, as the next block reads it.

    Args:
        net: Any network. Its weights, mode and hooks are left as they were.
        example: Images (B, C, H, W) that it accepts; their content plays no part.

    Returns:
        Names of modules that put out (B, C, H, W) and run once; empty if there are none.

    Raises:
        UsageError: The network cannot run on `example`.
    """
    graph = ForwardGraph(net, example)
    found: dict[int, str] = {}  # convolutions passed so far -> the last place after them
    for node, convolutions in _bottlenecks(graph):
        for name in graph.probes.get(node, ()):
            if convolutions and graph.calls[name] == 1 and len(graph.shapes[name]) == 4:
                found[convolutions] = name
                break
    return tuple(found.values())


def parameters_after(net: nn.Module, example: Tensor, block: str) -> tuple[str, ...]:
    """Return the names of the parameters that play no part in the output of a block.

    Args:
        net: Any network. Its weights, mode and hooks are left as they were.
        example: Images (B, C, H, W) that it accepts; their content plays no part.
        block: A name from `block_outputs`.
    """
    before = ForwardGraph(net, example).parameters_before(block)
    return tuple(name for name, p in net.named_parameters() if id(p) not in before)


def _bottlenecks(graph: ForwardGraph) -> list[tuple[Node, int]]:
    """Return the nodes that every path passes, and the number of convolutions up to each."""
    position = {node: number for number, node in enumerate(graph.nodes)}
    carries_images = set()
    reach = dict.fromkeys(graph.nodes, 0)  # node -> the last one that reads it
    for node in graph.nodes:
        sources = [s for s, _ in node.next_functions if s in carries_images]
        if sources or node in graph.probes:  # weights alone make no output of a module
            carries_images.add(node)
        for source in sources:
            reach[source] = position[node]
    passed, open_until, convolutions = [], 0, 0
    for node in graph.nodes:
        if node not in carries_images:
            continue
        convolutions += "Convolution" in node.name()
        if open_until <= position[node]:
            passed.append((node, convolutions))
        open_until = max(open_until, reach[node])
    return passed


def pooled(features: Tensor) -> Tensor:
    """Return what probes read of a layer's output, (B, C) or (B, C, H, W): float16 (B, C).

    11 bits are plenty for a linear probe; there is no infinity for a network that was blown up.
    """
    means = features.flatten(2).mean(2) if features.dim() == 4 else features
    return means.float().clamp(-_LARGEST, _LARGEST).half()


_LARGEST = torch.finfo(torch.float16).max
