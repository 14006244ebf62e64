"""Class transport: an edit for each class, learned before any request, added when one comes."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.files import digest
from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.class_edits.distil import learn_edit
from orthounlearn.methods.class_edits.inputs import Place, Recipe, look
from orthounlearn.methods.class_edits.rows import Rows, strangers_rows
from orthounlearn.methods.class_edits.sums import learn_sums
from orthounlearn.methods.head import find_classifier

_FORMAT = 8  # raise it when the same options would learn other edits


class ClassTransport(UnlearningMethod):
    r"""Each class gets an edit of the deeper layers, made while its images may still be used.

    What should be left of class c? What a network would show of it that never saw it. So the deeper
    layers are first trained anew, for a short time and without c; let t be that network
    (`methods.class_edits.held_out`). Then the edit of c is learned by a short distillation of the
    original network towards what t makes of the images of c, and towards the original itself
    elsewhere:

        KL(t^{-c}(x) ‖ q(x)) + Σ_l λ ‖h_l(x) − A_l h^t_l(x)‖² − g_l κ log(1 − P_l(c | h_l(x)))
                                                       for images x of the class, and
        KL(p(x) ‖ q(x)) + λ ρ Σ_l ‖h_l(x) − h⁰_l(x)‖²  for all others.

    q are the probabilities of the edited network and p the original's, t^{-c} those of t,
    renormalised without c; h_l are the pooled outputs of the blocks after the cut, h⁰_l the
    original's and h^t_l those of t. The linear maps A_l translate these into the original's
    features; they are fitted on images of other classes (`masking.transport.LinearMap`), so they
    know nothing of c. Distances are measured in standard deviations and averaged over the channels.
    P_l are linear critics that learn, step by step beside the network, to tell the classes by h_l
    (`methods.class_edits.critics`): they find what still gives an image away. g_l is 1 as long as
    they recognise the class in block l more surely than such critics do in t, else 0: a network
    that never saw airplanes shows their sky as well, and taking away more would harm the classes
    that share it. BatchNorm stays frozen. What is kept is the difference of the weights; the
    request adds it: no data, no forward pass, nothing to take off again. The row of the class in
    the classifier, a picture of the class, is replaced by one that was fitted without its images
    (`methods.class_edits.rows`).

    Several classes: the sum of their edits, so their order plays no part. For that the edits of
    all classes get some more steps together, in which the sums of random sets S of classes are
    taught to do for every class in S what its own edit does (`methods.class_edits.sums`); without
    them a sum of five harms the retained classes. What a class loses by chance in the short
    distillation of another is mended in these steps too.

    Source: ours. To renormalise without the class is the idea of DELETE (Zhou et al., CVPR 2025);
    the critics are those of domain-adversarial training (Ganin et al., arXiv 1505.07818).

    Deviations: none; it is our own method, and no published one to deviate from.

    Args:
        cut: Share of the network's blocks that stay as they are, in [0, 1): early layers hold
            little that tells one class from the others.
        feature_weight: λ, at least 0.
        retain_weight: ρ, at least 0.
        critic_weight: κ, at least 0.
        held_out_steps: Of the optimiser (AdamW, one cycle) to train t, for each class.
        steps: Of the same optimiser to learn the edit, for each class.
        batch_size: Images of the class, and as many others, in a step of the edit.
        learning_rate: The highest of both cycles.
        sum_steps: Of the second optimiser, for all classes together; 0 leaves the edits as they
            were learned one by one.
        sum_learning_rate: The highest of its cycle.
        max_images: Kept in memory to learn from, spread evenly over the classes.
        classes: Numbers of the classes that a request may ask for; None prepares all.

    Raises:
        UsageError: An option is out of range; in `unlearn`, a class was not prepared.
    """

    prepare_uses = frozenset({"forget_train", "retain_train"})
    training_free = True
    lasting = True

    def __init__(
        self,
        *,
        cut: float,
        feature_weight: float,
        retain_weight: float,
        critic_weight: float,
        held_out_steps: int,
        steps: int,
        batch_size: int,
        learning_rate: float,
        sum_steps: int,
        sum_learning_rate: float,
        max_images: int,
        classes: Sequence[int] | None = None,
    ) -> None:
        if not 0 <= cut < 1:
            raise UsageError(f"Expected method.cut in [0, 1), but got {cut}.")
        if min(held_out_steps, steps, batch_size, max_images) < 1 or sum_steps < 0:
            raise UsageError(
                "Expected method.held_out_steps, method.steps, method.batch_size and "
                "method.max_images of at least 1 and method.sum_steps of at least 0, "
                f"but got {held_out_steps}, {steps}, {batch_size}, {max_images} and {sum_steps}."
            )
        self.cut = cut
        self.recipe = Recipe(
            feature_weight=feature_weight,
            retain_weight=retain_weight,
            critic_weight=critic_weight,
            held_out_steps=held_out_steps,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            sum_steps=sum_steps,
            sum_learning_rate=sum_learning_rate,
        )
        self.max_images = max_images
        self.classes = classes

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Learn the edit of every class that there are images of, or read it where it is kept."""
        labels = self._prepared(context.num_classes)
        place = Place.after(net, context.example, self.cut)
        settings = [self.cut, self.max_images, asdict(self.recipe), context.seed, labels, _FORMAT]

        def learn() -> dict[str, Tensor]:
            seen = look(net, context, place, max_images=self.max_images)
            alone = {
                label: learn_edit(net, context, place, seen, self.recipe, label) for label in labels
            }
            edits = learn_sums(net, context, place, seen, self.recipe, alone)
            rows = strangers_rows(net, context, seen, labels)
            return {
                f"{label}.{name}": tensor
                for label, edit in edits.items()
                for name, tensor in zip(place.names, edit, strict=True)
            } | ({"rows.weight": rows.weight_KC, "rows.bias": rows.bias_K} if rows else {})

        kept = context.kept(net, f"transport-{digest(settings)[:12]}", learn)
        self._rows = None
        if "rows.weight" in kept:
            classifier = find_classifier(net, context.example)
            self._rows = Rows(classifier, kept["rows.weight"], kept["rows.bias"])
        self._parameters = [net.get_parameter(name).detach() for name in place.names]
        self._edits = {label: [kept[f"{label}.{name}"] for name in place.names] for label in labels}

    @torch.no_grad()
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Add the edits and replace the rows. Without data, without a forward pass."""
        missing = [label for label in context.forget if label not in self._edits]
        if missing:
            raise UsageError(
                f"Expected a request for classes that were prepared, out of {sorted(self._edits)}, "
                f"but got {missing}. Add them to method.classes, or prepare all with null."
            )
        # Edits move the rows of other classes too; those of classes that are gone already stay so.
        gone = {*context.forget, *(self._rows.gone() if self._rows else ())}
        for label in context.forget:
            torch._foreach_add_(self._parameters, self._edits[label])
        if self._rows:
            self._rows.put(gone)
        return net

    def _prepared(self, num_classes: int) -> list[int]:
        if self.classes is None:
            return list(range(num_classes))
        labels = sorted(set(self.classes))
        unknown = [label for label in labels if not 0 <= label < num_classes]
        if unknown:
            raise UsageError(
                f"Expected method.classes in 0 to {num_classes - 1}, but got {unknown}."
            )
        return labels
