"""Networks as users bring them, most of them wrong in one way."""

from torch import Tensor, nn


class Dense(nn.Module):
    """Sound, and without convolutions."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.head = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


class Pair(Dense):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(images), images


class Named(Dense):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(images)}


class Auxiliary(Dense):
    """A second output in training alone, as GoogLeNet has."""

    def forward(self, images: Tensor):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class Thousand(Dense):
    def __init__(self, in_channels: int, image_size: int) -> None:
        super().__init__(1000, in_channels, image_size)


class Failing(Dense):
    def forward(self, images: Tensor) -> Tensor:
        return self.head(images)


class Grouped(nn.Sequential):
    """GroupNorm between the last convolution and the classifier."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes),
        )  # fmt: skip
