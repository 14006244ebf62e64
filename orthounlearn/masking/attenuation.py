"""The edit of the weights: channels scaled down, in place, with nothing left to take off again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.files import writing
from orthounlearn.masking.tracing import Site

NormHandling = Literal["clean", "literal"]


class Attenuation:
    """Scales the output channels of chosen sites of one network.

    With a BatchNorm after the layer, y = γ(x − μ)/σ + β. "clean" scales γ and β by f, so y, and
    any ReLU of it, becomes exactly f·y. "literal" scales the kernel (and its bias) as published;
    then y becomes f·y + (1 − f)(β − γμ/σ), since the BatchNorm still subtracts the old mean.
    Layers without a BatchNorm have their kernel and bias scaled in both cases.

    Args:
        net: The network; its tensors are changed in place by `apply`.
        sites: Where.
        norm_handling: "clean" or "literal".

    Raises:
        UsageError: A BatchNorm without weights stands where "clean" would scale them.
    """

    def __init__(
        self, net: nn.Module, sites: Sequence[Site], *, norm_handling: NormHandling = "clean"
    ) -> None:
        if norm_handling not in ("clean", "literal"):
            raise UsageError(
                f"Expected method.norm_handling to be clean or literal, but got {norm_handling!r}."
            )
        modules = dict(net.named_modules())
        self.names: list[str] = []
        self._tensors: list[Tensor] = []
        self._site_of: list[int] = []
        for index, site in enumerate(sites):
            for producer in site.producers:
                scales_norm = producer.conv is None or (
                    producer.norm is not None and norm_handling == "clean"
                )
                layer = str(producer.norm if scales_norm else producer.conv)
                if modules[layer].weight is None:
                    raise UsageError(
                        f"Expected the BatchNorm {layer} to have weights (affine=True). Use "
                        "method.norm_handling=literal for this network."
                    )
                for kind in ("weight", "bias"):
                    parameter = getattr(modules[layer], kind)
                    if parameter is not None:
                        self.names.append(f"{layer}.{kind}")
                        self._tensors.append(parameter.detach())
                        self._site_of.append(index)

    def shape(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """Lay the factors (C,) of the sites out for `apply`, one tensor per weight to change."""
        return [
            factors[index].to(tensor).view(-1, *[1] * (tensor.ndim - 1))
            for index, tensor in zip(self._site_of, self._tensors, strict=True)
        ]

    def apply(self, shaped: Sequence[Tensor]) -> None:
        """Multiply all weights by their factors, in one call."""
        torch._foreach_mul_(self._tensors, list(shaped))

    def inverse(self, shaped: Sequence[Tensor]) -> "Inverse":
        """Apply the factors and return what undoes it: the old bits of the rows that change."""
        rows = [factor.flatten() != 1 for factor in shaped]
        before = [tensor[row].clone() for tensor, row in zip(self._tensors, rows, strict=True)]
        self.apply(shaped)
        after = [tensor[row].clone() for tensor, row in zip(self._tensors, rows, strict=True)]
        return Inverse(
            rows=dict(zip(self.names, (row.nonzero()[:, 0] for row in rows), strict=True)),
            before=dict(zip(self.names, before, strict=True)),
            after=dict(zip(self.names, after, strict=True)),
        )


@dataclass(frozen=True)
class Inverse:
    """What takes an attenuation back, bit by bit.

    Attributes:
        rows: Name of a weight -> indices of its changed rows.
        before: Name of a weight -> those rows of the original model.
        after: Name of a weight -> those rows of the unlearned model, to recognise it.
    """

    rows: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]

    def restore(self, net: nn.Module) -> None:
        """Give the changed rows their old bits back, in place.

        Raises:
            UsageError: The network is not the one that this inverse was saved for.
        """
        state = net.state_dict()
        for name, row in self.rows.items():
            if name not in state or not torch.equal(state[name][row].cpu(), self.after[name].cpu()):
                raise UsageError(
                    f"Expected the unlearned network that this inverse belongs to, but {name} "
                    "differs. Nothing was changed."
                )
        with torch.no_grad():
            for name, row in self.rows.items():
                state[name][row] = self.before[name].to(state[name])

    def save(self, path: Path) -> None:
        """Write to a safetensors file, atomically."""
        tensors = {
            f"{part}/{name}": value.contiguous()
            for part in ("rows", "before", "after")
            for name, value in getattr(self, part).items()
        }
        with writing(path) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, path: Path) -> "Inverse":
        """Read an inverse.

        Raises:
            UsageError: The file is missing or damaged.
        """
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"Expected a saved inverse in {path}, but cannot read it ({error})."
            ) from error
        parts: dict[str, dict[str, Tensor]] = {"rows": {}, "before": {}, "after": {}}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        return cls(**parts)
