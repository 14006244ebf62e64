"""Finding the channels of any network by tracing one forward pass, not by class names.

Each convolution (with the BatchNorm that directly follows) starts
a set of channels; activations and pooling carry the set on; an addition unites the sets of its
branches; everything else (concatenation, gating, reshaping layers) ends it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orthounlearn.errors import UsageError
from orthounlearn.models.graph import ForwardGraph, Node

# Ops whose output channel j is a positively homogeneous function of input channel j alone:
# f·x in gives f·y out for f ≥ 0, so attenuation passes through exactly.
_CARRIES = (
    "ReluBackward",
    "LeakyReluBackward",
    "ThresholdBackward",
    "MaxPool",
    "AvgPool",
    "AdaptiveAvgPool",
    "MkldnnAdaptiveAvgPool",
    "MeanBackward",
    "AmaxBackward",
    "ViewBackward",
    "UnsafeViewBackward",
    "ReshapeAliasBackward",
    "AsStridedBackward",  # how pooling to 1×1 returns its result in channels-last memory
    "SqueezeBackward",
    "CloneBackward",
    "ToCopyBackward",
)
# Still channel by channel, but f·x in does not give f·y out.
_CARRIES_INEXACTLY = ("HardtanhBackward", "SiluBackward", "GeluBackward", "HardswishBackward")


@dataclass(frozen=True)
class Producer:
    """A layer that makes channels, and the BatchNorm that directly follows.

    Attributes:
        conv: Name of the convolution; None for a BatchNorm that follows no single convolution.
        norm: Name of the BatchNorm; None if none follows.
    """

    conv: str | None
    norm: str | None


@dataclass(frozen=True)
class Site:
    """A place where C channels can be measured and attenuated.

    Attributes:
        name: Unique, for people and files.
        kind: "conv": one layer. "stream": layers whose outputs are added up along a skip path, and
            which must be attenuated together, since the sum is small only if every term is.
        producers: The layers to attenuate.
        probe: Name of the module whose output shows the channels.
        num_channels: C.
        in_stream: The layer's output enters an addition.
        feeds_classifier: These are the channels that the classifier reads (after pooling).
    """

    name: str
    kind: Literal["conv", "stream"]
    producers: tuple[Producer, ...]
    probe: str
    num_channels: int
    in_stream: bool
    feeds_classifier: bool


def trace_sites(net: nn.Module, example: Tensor) -> tuple[Site, ...]:
    """Return the sites of a network in the order of its forward pass.

    Left out, because an attenuation would not be exact: layers that run more than once, weights
    behind a parametrization, and sums with a term that is no such set of channels.

    Args:
        net: Any network of convolutions. Its weights, mode and hooks are left as they were.
        example: Images (B, C, H, W) that it accepts; their content plays no part.

    Raises:
        UsageError: There is no convolution, or the network cannot run on `example`.
    """
    graph = ForwardGraph(net, example)
    channels = _Channels(graph)
    sites = [*channels.conv_sites(), *channels.stream_sites()]
    if not sites:
        raise UsageError(
            f"Expected a network with convolutions, but found none in {type(net).__name__}."
        )
    return tuple(sorted(sites, key=lambda site: graph.position(site.probe)))


def select_sites(sites: Sequence[Site], which: str | Sequence[str]) -> tuple[Site, ...]:
    """Choose sites.

    Args:
        sites: From `trace_sites`.
        which: "last": the channels that the classifier reads; "inner": every layer that enters
            no sum; "convs": every layer on its own (the literal reading of the paper); "streams";
            or names, with `*` and `?`.

    Raises:
        UsageError: Nothing matches; lists what there is.
    """
    groups = _groups(sites)
    if isinstance(which, str) and which in groups:
        chosen = groups[which]
    else:
        patterns = [which] if isinstance(which, str) else list(which)
        chosen = [s for s in sites if any(fnmatchcase(s.name, pattern) for pattern in patterns)]
    if not chosen:
        there = [f"method.sites={name}" for name, members in groups.items() if members]
        raise UsageError(
            f"Expected sites to be {', '.join(groups)} or names, but {which!r} matches nothing in "
            f"this network. Choose {' or '.join(there)}, or names. "
            f"Names: {', '.join(site.name for site in sites)}."
        )
    return tuple(chosen)


def _groups(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Return the sites by the words that choose several of them."""
    convs = [s for s in sites if s.kind == "conv"]
    streams = [s for s in sites if s.kind == "stream"]
    return {
        "last": [s for s in sites if s.feeds_classifier and (s in streams or not s.in_stream)],
        "inner": [s for s in convs if not s.in_stream],
        "convs": convs,
        "streams": streams,
    }


class _Channels:
    """The channel sets of a network; a set goes by its first layer's name."""

    def __init__(self, graph: ForwardGraph) -> None:
        self._graph = graph
        self._modules = graph.modules
        self._nodes = graph.nodes
        self._probes = graph.probes
        self._calls = graph.calls
        self._owner = self._find_owners()
        self._norm_of: dict[str, str | None] = {}  # layer that starts a set -> its BatchNorm
        self._parent: dict[str, str] = {}  # union-find over sets
        self._set_of: dict[Node, str] = {}
        self._reaches: dict[Node, str] = {}  # as _set_of, also through inexact activations
        self._added: set[str] = set()
        self._broken: set[str] = set()
        self._spread()

    def _find_owners(self) -> dict[Node, str]:
        """Map the node of each convolution and BatchNorm that runs once to the module's name."""
        names = {
            id(module.weight): name
            for name, module in self._modules.items()
            if isinstance(module, (nn.Conv2d, _BatchNorm)) and module.weight is not None
        }
        owners = {
            node: names[id(source.variable)]
            for node in self._nodes
            for source, _ in node.next_functions
            if id(getattr(source, "variable", None)) in names
        }
        for node, probes in self._probes.items():  # a BatchNorm without weights leaves no leaf
            for name in probes:
                module = self._modules[name]
                if isinstance(module, _BatchNorm) and module.weight is None:
                    owners[node] = name
        runs = Counter(owners.values())
        return {node: name for node, name in owners.items() if runs[name] == 1}

    def _spread(self) -> None:
        """Give every node its channel set, from the images to the logits."""
        consumers = Counter(s for node in self._nodes for s, _ in node.next_functions)
        for node in self._nodes:
            sources = [s for s, _ in node.next_functions if s is not None]
            if node in self._owner:
                self._start(node, sources, consumers)
            elif node.name().startswith("AddBackward"):
                self._unite(node, sources)
            elif len(sources) == 1 and node.name().startswith(_CARRIES):
                _inherit(self._set_of, node, sources[0])
            if node in self._set_of:
                self._reaches[node] = self._set_of[node]
            elif len(sources) == 1 and node.name().startswith(_CARRIES + _CARRIES_INEXACTLY):
                _inherit(self._reaches, node, sources[0])

    def _start(self, node: Node, sources: list[Node], consumers: Counter[Node]) -> None:
        """Open a set at a convolution, or extend a convolution's set by its BatchNorm."""
        layer = self._owner[node]
        start = layer
        if not isinstance(self._modules[layer], nn.Conv2d):
            convs = [
                self._owner[s]
                for s in sources
                if consumers[s] == 1
                and isinstance(self._modules.get(self._owner.get(s, "")), nn.Conv2d)
            ]
            start = convs[0] if convs else layer
        self._norm_of[start] = None if layer == self._conv(layer) else layer
        self._parent[start] = start
        self._set_of[node] = start

    def _conv(self, layer: str) -> str | None:
        return layer if isinstance(self._modules[layer], nn.Conv2d) else None

    def _unite(self, node: Node, sources: list[Node]) -> None:
        known = [self._set_of[source] for source in sources if source in self._set_of]
        for layer in known:
            self._added.add(layer)
            self._parent[self._root(layer)] = self._root(known[0])
        if known and len(known) == len(sources):
            self._set_of[node] = known[0]
        elif known:  # a term that cannot be attenuated, so neither can the sum
            self._broken.add(known[0])

    def _root(self, layer: str) -> str:
        while self._parent[layer] != layer:
            layer = self._parent[layer]
        return layer

    def _read_by_classifier(self) -> str | None:
        """Return the set that the first linear layer after the last convolution reads."""
        reading = None
        for node in self._nodes:
            if node.name().startswith(("AddmmBackward", "MmBackward", "LinearBackward")):
                for source, _ in node.next_functions:
                    if source in self._reaches:
                        reading = self._root(self._reaches[source])
        return reading

    def _producer(self, layer: str) -> Producer:
        return Producer(self._conv(layer), self._norm_of[layer])

    def _channels(self, layer: str) -> int:
        module = self._modules[layer]
        return module.out_channels if isinstance(module, nn.Conv2d) else int(module.num_features)

    def conv_sites(self) -> list[Site]:
        """Return one site for each layer on its own."""
        reading = self._read_by_classifier()
        summed = {self._root(layer) for layer in self._added}
        return [
            Site(
                name=layer,
                kind="conv",
                producers=(self._producer(layer),),
                probe=norm or layer,
                num_channels=self._channels(layer),
                in_stream=self._root(layer) in summed,
                feeds_classifier=self._root(layer) == reading and reading not in summed,
            )
            for layer, norm in self._norm_of.items()
            if self._calls[norm or layer] == 1
        ]

    def stream_sites(self) -> list[Site]:
        """Return one site for each sum along a skip path."""
        reading = self._read_by_classifier()
        broken = {self._root(layer) for layer in self._broken}
        members = defaultdict(list)
        for layer in self._norm_of:
            members[self._root(layer)].append(layer)
        return [
            Site(
                name=f"stream:{probe}",
                kind="stream",
                producers=tuple(self._producer(layer) for layer in layers),
                probe=probe,
                num_channels=self._channels(root),
                in_stream=True,
                feeds_classifier=root == reading,
            )
            for root, layers in members.items()
            if len(layers) > 1 and root not in broken
            for probe in self._last_probes(root)
        ]

    def _last_probes(self, root: str) -> list[str]:
        """Return the last module, run once, that puts out the stream before it is pooled."""
        found: list[str] = []
        for node in self._nodes:
            if (
                node in self._set_of
                and node not in self._owner
                and self._root(self._set_of[node]) == root
                and node.name().startswith(("Add", "Relu", "LeakyRelu"))
            ):
                found += [probe for probe in self._probes[node] if self._calls[probe] == 1][:1]
        return found[-1:]


def _inherit(sets: dict[Node, str], node: Node, source: Node) -> None:
    if source in sets:
        sets[node] = sets[source]
