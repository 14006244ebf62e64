"""VGG with batch normalisation, made by torchvision's layer maker."""

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from orthounlearn.errors import UsageError

_LETTERS = {11: "A", 13: "B", 16: "D", 19: "E"}
_STEM_CHANNELS = 64  # of the published networks; `width` scales all channels relative to it


class VGG(nn.Module):
    """VGG-BN (Simonyan and Zisserman, arXiv 1409.1556) with one linear classifier.

    The three-layer classifier of the ImageNet version is replaced by global average pooling and
    one linear layer, as usual for CIFAR. The last max-pool goes as well (pooling follows anyway),
    and so do the pools that a small image has no pixels left for.
    """

    def __init__(
        self, plan: list[int | str], *, num_classes: int, in_channels: int, image_size: int
    ) -> None:
        super().__init__()
        channels = [entry for entry in plan if entry != "M"][-1]
        self.features = make_layers(_fit_pools(plan, image_size), batch_norm=True)
        if in_channels != 3:
            first = self.features[0]
            self.features[0] = nn.Conv2d(in_channels, first.out_channels, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(int(channels), num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


def _fit_pools(plan: list[int | str], image_size: int) -> list[int | str]:
    """Keep the pools that leave at least 2×2 pixels at `image_size`, never the last one."""
    left = image_size
    kept: list[int | str] = []
    for entry in plan[:-1]:
        if entry == "M":
            if left < 4:
                continue
            left //= 2
        kept.append(entry)
    return kept


def vgg(
    *, depth: int, num_classes: int, in_channels: int = 3, image_size: int = 32, width: int = 64
) -> VGG:
    """Build a VGG-BN of depth 11, 13, 16 or 19.

    Args:
        depth: Number of weighted layers in the published network.
        num_classes: Number of logits K.
        in_channels: 1 for grey, 3 for RGB.
        image_size: Height in pixels; decides how many of the max-pools fit.
        width: Channels of the first layer; 64 is the published size, the others scale with it.

    Raises:
        UsageError: The depth is not one of those, or the width is not positive.
    """
    if depth not in _LETTERS:
        raise UsageError(f"Expected a VGG depth out of {sorted(_LETTERS)}, but got {depth}.")
    if width < 1:
        raise UsageError(f"Expected a width of at least 1 channel, but got {width}.")
    plan: list[int | str] = [
        entry if entry == "M" else max(1, int(entry) * width // _STEM_CHANNELS)
        for entry in cfgs[_LETTERS[depth]]
    ]
    return VGG(plan, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
