"""The row of a class in the classifier, a picture of the class, is deleted by its edit."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from orthounlearn.methods.class_edits.inputs import Edits, Place, Seen
from orthounlearn.methods.head import logits_layer

_DEVIATIONS = 3.0  # below the mean: lower than the logit of a class on images of almost all others


def delete_rows(
    original: nn.Module,
    example: Tensor,
    place: Place,
    seen: Seen,
    edits: Mapping[int, Sequence[Tensor]],
) -> Edits:
    r"""Let the edit of class c end at w_c = 0 and b_c = mean − 3 deviations of its logit z_c.

    The moments are those over the images of all other classes. So the logit of a forgotten class is
    a constant, and lower than the original gives it where there is nothing of the class: nobody can
    read from it what an image shows, or whether it was trained on, and no sum of edits names the
    class again. By itself this forgets nothing inside (`methods.zero_row`): it ends an edit that
    has removed the class from the features, whose row still holds the class's mean direction.

    Source: ours.

    Args:
        original: The network that is edited.
        example: Images (B, C, H, W) that it accepts.
        place: Where.
        seen: The original's logits.
        edits: Of each class.

    Returns:
        New edits of the same classes; the same for a class without images, and where the logits do
        not come straight out of a linear layer with a bias at the place.
    """
    found = {label: list(edit) for label, edit in edits.items()}
    classifier = logits_layer(original, example)
    parameters = [original.get_parameter(name) for name in place.names]
    numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
    weight, bias = (numbers.get(id(getattr(classifier, name, None))) for name in ("weight", "bias"))
    if weight is None or bias is None:
        return found
    for label in set(found) - set(seen.absent):
        others_M = seen.logits_NK[seen.labels_N != label, label]
        if not len(others_M):
            continue
        level = others_M.mean() - _DEVIATIONS * others_M.std(correction=0)
        edit = found[label]
        for number, wanted in ((weight, torch.zeros_like(level)), (bias, level)):
            edit[number] = edit[number].clone()
            edit[number][label] = wanted - parameters[number].detach()[label]
    return found
