"""What it saves class transport to run once what lies before the place that it edits."""

from dataclasses import replace
from functools import partial

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired
from orthounlearn.config.build import build
from orthounlearn.engine.context import RequestContext
from orthounlearn.methods.class_edits.distil import learn_edit
from orthounlearn.methods.class_edits.inputs import Place, look
from orthounlearn.methods.class_transport import ClassTransport


def measure(setting: Setting) -> list[Row]:
    """Learn a short edit of one class from the outputs before the place, and from the images."""
    return [_row(setting, model) for model in ("resnet18_thin", "vgg13_thin")]


def _row(setting: Setting, model: str) -> Row:
    rounds, count, steps = setting.choose((3, 10_000, 20), (2, 100, 10))
    experiment = setting.experiment(f"model={model}", "method=class_transport")
    method = build(experiment.config["method"], ClassTransport)
    context = RequestContext(
        experiment, method, splits=experiment.splits(), seed=0, kept_folder=setting.folder
    )
    net = experiment.new_net(0).eval()
    place = Place.after(net, context.example, method.cut)
    recipe = replace(method.recipe, held_out_steps=2 * steps, steps=steps)
    with context.preparing():
        ways = [
            partial(
                learn_edit, net, context, place,
                look(net, context, looked_at, max_images=count), recipe, 0,
            )
            for looked_at in (place, replace(place, before=None))
        ]  # fmt: skip
    times = paired(*ways, rounds=rounds)
    return Row(
        "preparation",
        f"{model}: {2 * steps} held-out steps and {steps} of an edit, from outputs of a block",
        "the same from the images",
        Spread.of(replayed / whole for replayed, whole in times),
        Target("at most", 0.8),
    )
