"""Forget "cat" from a CIFAR-10 network, and look at what changed.

Step through the cells (`# %%`) in VS Code, PyCharm, Spyder or Jupyter, or run the file:

    ORTHOUNLEARN_DATA=FOLDER python examples/forget_a_cat.py

CIFAR-10 is read from that folder, or fetched where the variable is not set, which takes its own
time. The rest takes less than three minutes on two cores like those of the README's tables, more on
a busy machine, most of them for two small networks that are trained for this file alone: they get
two of three images right, so what they show is how an audit reads, not how well a method does.
Trained once, they are found again the next time. With `experiment=cifar10_cpu` and
`metrics.reference=train` alone in `QUICK`, they are the ResNets of the table in the README, which
train for about ten minutes each.
"""

# %% What is needed
from collections.abc import Mapping

import plotly.express as px

from orthounlearn.config.standalone import configuration
from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.checkpoints import load_network
from orthounlearn.engine.experiment import Experiment, open_experiment
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.unlearn import unlearn
from orthounlearn.files import read_json
from orthounlearn.lit.process import prepare_process

PHASES = ("original", "unlearned", "retrained")

# %% The experiment: the words of the command line, `orthounlearn unlearn WORD WORD ...`
# A ResNet-18 at an eighth of its width, three epochs, two of them on images of 16 x 16 pixels.
QUICK = (
    "experiment=cifar10_cpu",
    "model.width=8",
    "recipe.epochs=3",
    "recipe.image_sizes=[16,16,24]",
    "metrics.reference_seeds=[]",  # one retrained network to compare with is enough here
    "metrics.reference=train",
    "logger=none",
)


def open_(*words: str) -> Experiment:
    """Return the experiment that these words describe, with its data."""
    return open_experiment(configuration("unlearn", *QUICK, *words))


prepare_process()
experiment = open_("forget=cat", "method=soft_prune")
request = open_request(experiment)

# %% The network that knows cats, and one that never saw any: the same recipe without them
print("Training the original and the retrained network, unless they are stored ...")
original = ensure_trained(experiment, seed=0)
retrained = ensure_trained(experiment, without=request.forget, seed=0)
print(f"trained in {original.seconds:.0f} s and {retrained.seconds:.0f} s")

# %% The request: forget "cat"
# Soft pruning measures every channel beforehand. The request itself multiplies a few weights.
metrics = {key: value for key, value in unlearn(request).items() if value is not None}
print(f"\nprepared in {metrics['unlearned/time/prep_s']:.1f} s, ", end="")
print(f"forgotten in {1000 * metrics['unlearned/time/unlearn_s']:.2f} ms")


# %% Accuracies: are cats gone, and what did it cost?
def show(title: str, key: str, found: Mapping[str, float | None]) -> None:
    """Print one metric of the three networks, in per cent."""
    values = (found.get(f"{phase}/{key}") for phase in PHASES)
    columns = (f"{'–':>10s}" if value is None else f"{100 * value:8.1f} %" for value in values)
    print(f"{title:36s}", *columns)


print(f"\n{'':36s}", *(f"{phase:>10s}" for phase in PHASES))
show("accuracy on cats that were trained on", "acc/forget_train", metrics)
show("accuracy on new cats", "acc/forget_test", metrics)
show("accuracy on the nine other classes", "acc/retain_test", metrics)

# %% Where cats go now: a network that never saw one takes most of them for dogs
print("\nNew cats are called")
for name in experiment.data.class_names:
    show(f"  {name}", f"pred/forget_hist/{name}", metrics)

# %% Is the class gone, or only its name? Ask the features
# A fresh linear classifier is fitted on 50 images of each class, on what a block of the network
# puts out. What counts is not how many cats it finds, but whether it finds more of them than in
# the network that never saw one.
print("\nNew cats that a probe finds in")
block = 1
while f"unlearned/depth/{block}" in metrics:
    show(f"  block {block}", f"depth/{block}", metrics)
    block += 1
show("  what the classifier reads", "probe/k50", metrics)

# %% The rival that any method has to beat: cut the output of the class off, and nothing else
rival = open_request(open_("forget=cat", "method=mask_logit"))
masked = unlearn(rival)
print("\nThe same metrics if the cat's logit is masked and nothing is forgotten at all")
show("accuracy on new cats", "acc/forget_test", masked)
show("accuracy on the nine other classes", "acc/retain_test", masked)
show("probe on what the classifier reads", "probe/k50", masked)

# %% What the audit makes of both
for name, one in (("soft pruning", request), ("masked logit", rival)):
    verdict = read_json(one.folder / "audit.json")["verdict"]
    print(f"\n{name}: {verdict['title']} ({verdict['headline']}).")
    for reason in [reason for reasons in verdict["reasons"].values() for reason in reasons]:
        print(f"- {reason}")
    print(f"What this does not say: {one.folder / 'certificate.html'}")

# %% Some cats, and what the network called them before and after
before = original.load(experiment)
after = experiment.new_net(seed=0)
load_network(after, request.checkpoint)
answers = [
    predict(experiment, net, request.splits, ["forget_test"]).logits["forget_test"].argmax(1)
    for net in (before, after.to(experiment.device))
]
chosen = request.splits["forget_test"][:12]
pictures = px.imshow(experiment.data.test.images_NHWC[chosen], facet_col=0, facet_col_wrap=6)
names = experiment.data.class_names
told = [f"{names[old]} → {names[new]}" for old, new in zip(*answers, strict=True)]
pictures.for_each_annotation(lambda title: title.update(text=told[int(title.text.split("=")[1])]))
pictures.update_xaxes(visible=False).update_yaxes(visible=False)
pictures.write_html(request.folder / "cats.html")
print(f"\npictures: {request.folder / 'cats.html'}")
