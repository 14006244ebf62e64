"""Training: what Lightning costs, and how long the recipe takes against the usual way."""

import os
from statistics import mean

from bench.pipeline import Epoch, TakeTurns, train_in_turns
from bench.plain import same_steps_without_lightning, steps_of_the_usual_way, training_loader
from bench.results import Row, Target
from bench.setting import Setting
from bench.state import deterministic, threads
from bench.timing import Spread
from orthounlearn.engine.experiment import Experiment

_USUAL_EPOCHS = 12
_RECIPE = "cifar_cpu_88"


def lightning(setting: Setting) -> list[Row]:
    """Compare an epoch under Lightning (callbacks, CSV log, checkpoint) with a bare loop.

    The two take turns step by step on the same kind of batches. Without a regulariser, whose
    callback also logs Gram errors that a bare loop would not compute.
    """
    rounds, batches = setting.choose((5, 25), (1, 3))
    experiment = _experiment(setting, sizes=[32] * (1 + rounds), batches=batches)
    bare = same_steps_without_lightning(experiment)

    def bare_step() -> None:
        with deterministic(False):  # else Trainer's mode would slow both, and not show
            next(bare)

    epochs = train_in_turns(experiment, TakeTurns(bare_step))[1:]
    whole = len(training_loader(experiment))
    return [
        Row(
            "lightning",
            "an epoch of thin ResNet-18 by LitClassifier and Trainer",
            "the same steps in a bare loop",
            Spread.of(epoch.seconds(whole) / (epoch.other_step_s * whole) for epoch in epochs),
            Target("at most", 1.05),
            note=f"{batches} steps and the end of each epoch, extrapolated to {whole} steps; "
            "torch's deterministic mode is on under Trainer, off in the bare loop",
        )
    ]


def time_to_88(setting: Setting) -> list[Row]:
    """Compare two schedules, meant for 88 %, with the usual way to train 12 epochs.

    Both may use all cores, since the workers of the usual way do so anyway. They take turns in
    blocks longer than what workers prepare in advance.
    """
    rounds, batches, skip = setting.choose((5, 12, 3), (1, 3, 1))
    schedule: list[int] = setting.experiment(f"recipe={_RECIPE}").config["recipe"]["image_sizes"]
    sizes = sorted(set(schedule))
    experiment = _experiment(setting, sizes=sizes * (1 + rounds), batches=skip + batches)
    whole = len(training_loader(experiment))
    with threads(setting.choose(os.cpu_count() or 1, 1)):
        usual = steps_of_the_usual_way(experiment)

        def usual_step() -> None:
            with deterministic(False):
                next(usual)

        usual_step()  # starts the workers
        turns = TakeTurns(usual_step, every=batches, skip=skip)
        epochs = train_in_turns(experiment, turns)

    by_round: list[dict[int, Epoch]] = [
        dict(zip(sizes, epochs[start : start + len(sizes)], strict=True))
        for start in range(len(sizes), len(epochs), len(sizes))
    ]
    usual_s = [
        mean(epoch.other_step_s for epoch in of.values()) * whole * _USUAL_EPOCHS for of in by_round
    ]
    rows = []
    for title, plan, limit in (
        ("ours, the same epochs", [max(sizes)] * _USUAL_EPOCHS, 2.0),
        (f"ours, recipe={_RECIPE}", schedule, 3.0),
    ):
        ours_s = [sum(of[size].seconds(whole) for size in plan) for of in by_round]
        minutes = [Spread.of(values).median / 60 for values in (usual_s, ours_s)]
        rows.append(
            Row(
                "time_to_88",
                f"torchvision, 2 workers, float32, bare loop, {_USUAL_EPOCHS} epochs at full size",
                title,
                Spread.of(a / b for a, b in zip(usual_s, ours_s, strict=True)),
                Target("at least", limit),
                note=f"{minutes[0]:.3g} against {minutes[1]:.3g} minutes, extrapolated from "
                f"{batches} steps at each size to epochs of {whole}; the "
                "accuracy that they reach is not measured here",
            )
        )
    return rows


def _experiment(setting: Setting, *, sizes: list[int], batches: int) -> Experiment:
    return setting.experiment(
        "model=resnet18_thin",
        "regularizer=none",
        f"recipe.epochs={len(sizes)}",
        f"recipe.image_sizes={sizes}",
        f"trainer.limit_train_batches={batches}",
        "trainer.limit_val_batches=0",
    )
