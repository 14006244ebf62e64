"""The interface of every unlearning method, and the context that a method works in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypedDict

from torch import Tensor, nn
from torch.optim import Optimizer

from orthounlearn.errors import UsageError
from orthounlearn.masking.channels import ChannelEdit
from orthounlearn.masking.statistics import ClassStatistics
from orthounlearn.masking.tracing import Site

SplitName = Literal["forget_train", "forget_val", "retain_train", "retain_val"]
"""The sets that a method may ask for. Test and probe sets belong to the audit alone."""

Batch = tuple[Tensor, Tensor]
"""Float images (B, C, H, W), normalised, and labels (B,), both on the network's device."""


class Context(Protocol):
    """What surrounds one request. The engine makes it; a test may hand in its own."""

    num_classes: int
    seed: int
    example: Tensor
    """Two images (2, C, H, W) of no content, to trace networks with."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per channel: a batch is (pixel − mean) / std with pixels in [0, 1]."""

    @property
    def forget(self) -> tuple[int, ...]:
        """The classes of the request; reading it during `prepare` raises `PermissionError`."""
        ...

    def batches(
        self, split: SplitName, *, batch_size: int, augment: bool = False, shuffle: bool = False
    ) -> Iterable[Batch]:
        """Return the batches of one set; `PermissionError` for a set that is not declared."""
        ...

    def statistics(
        self, net: nn.Module, *, sites: tuple[Site, ...], pooling: Literal["max", "mean"]
    ) -> ClassStatistics:
        """Return the activation statistics of all classes over the train set.

        They are stored beside the checkpoint and read again by the next request; the time of
        measuring them counts as preparation in both cases.
        """
        ...

    def kept(
        self, net: nn.Module, name: str, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return what `make` returns for this network, from the file if it is there.

        For preparation that is worth keeping: it is stored beside the checkpoint, and the time of
        making it counts as preparation also where it is read.

        Args:
            net: That it belongs to.
            name: Of the file; has to tell apart whatever changes the tensors but the network.
            make: Called at most once, by one process.
        """
        ...

    def autocast(self) -> AbstractContextManager[None]:
        """Return the configured mixed precision."""
        ...

    def fit(self, net: nn.Module, method: "LossMethod") -> None:
        """Run the phases of `method` in place, on one device, with the configured precision."""
        ...

    def retrained(self, *, seed: int) -> tuple[nn.Module, float]:
        """Return a network trained from scratch without the forget set, and its seconds."""
        ...


class UnlearningMethod(ABC):
    """Turns the original model into an unlearned one.

    The engine calls and times `prepare` before the request is known, then `unlearn`, the request.
    Instances hold their options and what `prepare` made, nothing else.

    Attributes:
        prepare_uses: The sets that `prepare` reads.
        uses: The sets that `unlearn` reads: what must still be there when a request comes.
        training_free: `unlearn` only edits weights. Its time is then the median of several runs
            on copies, after a warm-up.
        lasting: What `prepare` made of the original serves later requests too: of several, one
            after another, it comes before the first, on the original and with all images.
        unlearn_seconds: Set by a method whose result was computed earlier (retrain), to the time
            that it took then; None otherwise.
    """

    prepare_uses: ClassVar[frozenset[SplitName]] = frozenset()
    uses: ClassVar[frozenset[SplitName]] = frozenset()
    training_free: ClassVar[bool] = False
    lasting: ClassVar[bool] = False
    unlearn_seconds: float | None = None

    def prepare(self, net: nn.Module, context: Context) -> None:  # noqa: B027 - optional step
        """Do what can be done before the request is known. The default does nothing."""

    @abstractmethod
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Carry out the request; return the unlearned network (`net` edited, or another one)."""

    def channels(self, forget: tuple[int, ...]) -> dict[str, ChannelEdit]:  # noqa: ARG002 - a hook
        """Return site -> what the request did to its channels, in the order of the network.

        Called after the request, outside its time, for the record. The default is a method that
        does not choose channels.
        """
        return {}


Loss = Callable[[nn.Module, Mapping[str, Batch]], Tensor]
"""(net, batch) -> scalar; `batch` has one entry for each of the phase's sets."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training on one loss.

    Attributes:
        loss: What is minimised.
        sets: Name of an entry of the batch -> the splits that it is drawn from, shuffled together.
        epochs: Passes over the longest of the sets; shorter ones cycle.
        begin: Called before its first step with the network that the phase before has left, and
            with the optimiser.
    """

    loss: Loss
    sets: Mapping[str, tuple[SplitName, ...]]
    epochs: int
    begin: Callable[[nn.Module, Optimizer], None] | None = None


class Training(TypedDict):
    """The options that `LossMethod` takes; one with more of its own passes these on."""

    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    epochs: int
    batch_size: int
    batch_norm: Literal["train", "frozen"]


class LossMethod(UnlearningMethod):
    """A method that is a loss, minimised for some epochs from the original weights.

    The plain case implements `loss` alone. The other hooks are for methods with a teacher
    (`start`), several losses in turn (`phases`), weights that stay fixed (`parameters`,
    `after_step`), or something to take off again (`finish`). One optimiser serves all phases.

    Args:
        optimizer: Called with the parameters, returns the optimiser.
        epochs: Passes over the longest of the used sets.
        batch_size: Images per set and step.
        batch_norm: "train" updates the running statistics, "frozen" leaves them alone and
            normalises with them. A batch of the forget set alone must be "frozen", otherwise the
            statistics drift to that class and the network collapses.
    """

    def __init__(
        self,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        epochs: int,
        batch_size: int,
        batch_norm: Literal["train", "frozen"],
    ) -> None:
        if epochs < 1 or batch_size < 1:
            raise UsageError(
                "Expected method.epochs and method.batch_size of at least 1, "
                f"but got {epochs} and {batch_size}."
            )
        if batch_norm not in ("train", "frozen"):
            raise UsageError(
                f"Expected method.batch_norm to be train or frozen, but got {batch_norm!r}."
            )
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.batch_norm = batch_norm

    @abstractmethod
    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the scalar loss of one step; `batch` has one entry for each set in `uses`."""

    def start(self, net: nn.Module, context: Context) -> nn.Module:  # noqa: ARG002 - a hook
        """Make what the loss needs (a teacher, a mask); return the network to train."""
        return net

    def phases(self) -> Sequence[Phase]:
        """Return the losses in turn. The default is `loss` on the used sets, all epochs long."""
        return [Phase(self.loss, {split: (split,) for split in sorted(self.uses)}, self.epochs)]

    def parameters(self, net: nn.Module) -> list[nn.Parameter]:
        """Return what is trained. The default is everything that requires a gradient."""
        return [parameter for parameter in net.parameters() if parameter.requires_grad]

    def after_step(self, net: nn.Module, optimizer: Optimizer) -> None:
        """Correct the weights after a step of the optimiser. The default does nothing."""

    def finish(self, net: nn.Module) -> nn.Module:
        """Return the unlearned network from the trained one. The default is that network."""
        return net

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Train on the losses."""
        started = self.start(net, context)
        context.fit(started, self)
        return self.finish(started)
