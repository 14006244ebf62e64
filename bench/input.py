"""Images per second that reach the network: the project's input against torchvision's."""

from itertools import islice

from bench.plain import torchvision_batches, training_loader
from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired


def measure(setting: Setting) -> list[Row]:
    """Compare batches of CIFAR-10, cropped, flipped and normalised; one thread against two workers.

    Both make the same number of batches per turn. torchvision's workers start once; each turn of
    theirs begins without a batch made in advance.
    """
    rounds, batches = setting.choose((9, 80), (2, 2))
    experiment = setting.experiment("model=resnet18_thin")
    batch_size = experiment.config["recipe"]["batch_size"]
    transform, loader = experiment.transform, training_loader(experiment)
    workers = torchvision_batches(
        experiment.data,
        batch_size=batch_size,
        padding=experiment.config["data"]["crop_padding"],
        batches=batches,
    )

    def ours() -> None:
        for images, _ in islice(loader, batches):
            transform.train(images)

    def torchvision() -> None:
        for _ in workers:
            pass

    times = paired(torchvision, ours, rounds=rounds)
    images = batches * batch_size
    speeds = [Spread.of(images / turn[way] for turn in times).median for way in (0, 1)]
    return [
        Row(
            "input",
            "torchvision, Pillow, DataLoader with 2 workers: time per image",
            "BatchLoader and BatchTransform, 1 thread: time per image",
            Spread.of(a / b for a, b in times),
            Target("at least", 5),
            note=f"{speeds[0]:,.0f} against {speeds[1]:,.0f} images per second",
        )
    ]
