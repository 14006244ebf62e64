"""The audit as a torchmetrics metric, for a loop of one's own."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from orthounlearn.errors import UsageError
from orthounlearn.metrics.findings import Findings, compare
from orthounlearn.metrics.suite import AUDITED, Outputs, probed_layers, usable_logits
from orthounlearn.models.blocks import pooled


class UnlearningAudit(Metric):
    """Everything that the audit says of one network's logits and features, seen batch by batch.

    Logits are kept until `compute`: ranks, halves and probes need all of them at once. What is
    compared image by image (distances, intervals) needs the images in the same order in all
    networks, so let the references go through the same loader as the audited network. Of several
    processes each has to see images of every split, as Lightning's samplers see to.

    Args:
        forget: The forgotten classes.
        class_names: K names.
        layers: Layers that `update` gets features of; probes are fitted on these. "1", "2", … are
            blocks, `suite.CLASSIFIER` is what the classifier reads.
        original: What `outputs` returned for the network before the request.
        retrained: The same for each network that was trained without the classes.
        seed: Of the attackers' draws.
        **kwargs: Of `torchmetrics.Metric`.

    Raises:
        UsageError: A class that does not exist, or all of them.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self,
        *,
        forget: Sequence[int],
        class_names: Sequence[str],
        layers: Sequence[str] = (),
        original: Outputs | None = None,
        retrained: Sequence[Outputs] = (),
        seed: int = 0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        unknown = [label for label in forget if not 0 <= label < len(class_names)]
        if unknown or not forget or len(set(forget)) >= len(class_names):
            raise UsageError(
                f"Expected some, not all, of the classes 0 to {len(class_names) - 1} in forget, "
                f"got {list(forget)}."
            )
        self.forget, self.class_names, self.seed = list(forget), list(class_names), seed
        self.layers = tuple(layers)
        self._original, self._retrained = original, list(retrained)
        for split in AUDITED:
            for name in ("logits", "labels", *probed_layers(split, self.layers)):
                self.add_state(_state(split, name), default=[], dist_reduce_fx="cat")

    def update(
        self,
        split: str,
        logits: Tensor,
        labels: Tensor,
        features: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            split: One of `suite.AUDITED`.
            logits: (B, K).
            labels: (B,).
            features: Layer -> (B, C), or (B, C, H, W), which is pooled; of the layers of
                `suite.probed_layers`, others are passed over.

        Raises:
            UsageError: Another split, other shapes, or a layer is missing.
        """
        if split not in AUDITED:
            raise UsageError(f"Expected a split out of {', '.join(AUDITED)}; got {split!r}.")
        if logits.shape != (len(labels), len(self.class_names)):
            raise UsageError(
                f"Expected logits of shape {(len(labels), len(self.class_names))} on {split}, got "
                f"{tuple(logits.shape)}."
            )
        batch: dict[str, Tensor] = {"logits": logits.detach().float(), "labels": labels.detach()}
        for layer in probed_layers(split, self.layers):
            if features is None or layer not in features:
                given = ", ".join(features or ()) or "none"
                raise UsageError(f"Expected features of {layer!r} on {split}, got {given}.")
            batch[layer] = pooled(features[layer].detach())
        for name, values in batch.items():
            getattr(self, _state(split, name)).append(values)

    def compute(self) -> dict[str, Tensor]:
        """Return the figures under their keys in logs and tables; nan where undefined.

        With `retrained` they include distances, gaps and their intervals, with `original` what
        the request has cost.

        Raises:
            UsageError: A split has no images yet.
            DivergedError: There is nan among the logits.
        """
        ours = self._findings(self._outputs())
        compare(ours, *self._references)
        return {key: torch.tensor(value) for key, value in ours.figures.items()}

    def outputs(self) -> Outputs:
        """Return what was seen, of all processes, to be `original` or `retrained` of another audit.

        Raises:
            UsageError: A split has no images yet.
        """
        with self.sync_context(should_sync=self._to_sync):
            return self._outputs()

    @cached_property
    def _references(self) -> tuple[Findings | None, list[Findings]]:
        """The original and the retrained networks; measured once, however often it computes."""
        original = None if self._original is None else self._findings(self._original)
        return original, [self._findings(one) for one in self._retrained]

    def _findings(self, outputs: Outputs) -> Findings:
        return Findings.of(
            outputs, forget=self.forget, class_names=self.class_names, seed=self.seed
        )

    def _outputs(self) -> Outputs:
        empty = [split for split in AUDITED if not len(getattr(self, _state(split, "labels")))]
        if empty:
            raise UsageError(f"Expected images of every split, got none of {', '.join(empty)}.")
        features = {
            split: {layer: self._joined(split, layer) for layer in layers}
            for split in AUDITED
            if (layers := probed_layers(split, self.layers))
        }
        return Outputs(
            {split: usable_logits(self._joined(split, "logits"), split) for split in AUDITED},
            {split: self._joined(split, "labels") for split in AUDITED},
            features,
        )

    def _joined(self, split: str, name: str) -> NDArray[Any]:
        joined: Tensor = dim_zero_cat(getattr(self, _state(split, name)))
        return joined.cpu().numpy()


def _state(split: str, name: str) -> str:
    return f"{split}_{name}"
