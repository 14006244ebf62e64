"""The data flow of one forward pass of any network, as its autograd graph tells it.

That graph shows what really happens, whatever Python made it: functional calls, branches, shared
blocks. No class names are needed, and no network has to be symbolically traceable.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError

Node = Any  # torch.autograd.graph.Node


class ForwardGraph:
    """The autograd graph of one forward pass.

    Attributes:
        modules: Name -> module, all of the network.
        nodes: From the images to the logits, each after what it needs.
        probes: Node -> names of the modules that put out its tensor.
        shapes: Module name -> shape of the tensor that it put out last.
        calls: Module name -> times that it ran.

    Args:
        net: Any network. Its weights, mode and hooks are left as they were.
        example: Images (B, C, H, W) that it accepts; their content plays no part.

    Raises:
        UsageError: The network cannot run on `example`.
    """

    def __init__(self, net: nn.Module, example: Tensor) -> None:
        self.modules = dict(net.named_modules())
        self.probes: dict[Node, list[str]] = defaultdict(list)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.calls: Counter[str] = Counter()
        self._order: list[str] = []
        with self._recording(net):
            try:
                output = net(example)
            except (RuntimeError, ValueError, TypeError) as error:
                raise UsageError(
                    f"{type(net).__name__} cannot run on images of shape {tuple(example.shape)}: "
                    f"{error}"
                ) from error
            self.nodes = list(_topological(output.grad_fn))

    def position(self, name: str) -> int:
        """Return when a module finished in the forward pass."""
        return self._order.index(name)

    def parameters_before(self, module: str) -> set[int]:
        """Return the `id` of every parameter that the output of a module depends on."""
        output = next(node for node, names in self.probes.items() if module in names)
        return {id(node.variable) for node in _topological(output) if hasattr(node, "variable")}

    @contextmanager
    def _recording(self, net: nn.Module) -> Iterator[None]:
        """Note which module put out which node; restore mode, gradients and hooks after."""
        training = {module: module.training for module in net.modules()}
        frozen = [p for p in net.parameters() if not p.requires_grad]
        handles = []
        for name, module in self.modules.items():

            def record(_: nn.Module, __: Any, output: Any, name: str = name) -> None:  # noqa: ANN401
                self.calls[name] += 1
                self._order.append(name)
                if isinstance(output, Tensor) and output.grad_fn is not None:
                    self.probes[output.grad_fn].append(name)
                    self.shapes[name] = tuple(output.shape)

            handles.append(module.register_forward_hook(record))
        try:
            net.eval()
            for parameter in frozen:
                parameter.requires_grad_(True)
            with torch.enable_grad():
                yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter in frozen:
                parameter.requires_grad_(False)
            for module, mode in training.items():
                module.training = mode


def _topological(output: Node) -> Iterator[Node]:
    """Yield the nodes from the inputs to the output, without recursion (deep networks)."""
    done: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(output, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack.extend(
                (s, False) for s, _ in node.next_functions if s is not None and s not in done
            )
