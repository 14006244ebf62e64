"""What a run keeps to look at: channels as they were edited, the same images for all methods."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from orthounlearn.data.images import ImageSet
from orthounlearn.data.splits import make_splits
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import stored_model
from orthounlearn.engine.unlearn import unlearn
from orthounlearn.engine.views import SHOWN, save_channels, save_gallery
from orthounlearn.masking.channels import record_edits


def test_a_run_keeps_the_edit_that_its_weights_have(open_job: Callable):
    experiment = open_job("method=soft_prune", "forget=3", "metrics.reference=none")
    request = open_request(experiment)
    unlearn(request)
    net, edited = (experiment.new_net(0) for _ in range(2))
    net.load_state_dict(stored_model(experiment, seed=0).load(experiment).state_dict())
    edited.load_state_dict(torch.load(request.checkpoint, weights_only=True)["state_dict"])
    with np.load(request.folder / "channels.npz") as stored:
        (site,) = (key.partition("/")[2] for key in stored if key.startswith("strength/"))
        strength_C, score_C = stored[f"strength/{site}"], stored[f"score/{site}"]
        alone_KC = stored[f"alone/{site}"]
    scaled = {
        name: (edited.get_parameter(name) / old).detach().numpy()
        for name, old in net.named_parameters()
        if not torch.equal(old, edited.get_parameter(name)) and name.endswith("weight")
    }
    assert scaled
    for name, factor_C in scaled.items():
        np.testing.assert_allclose(factor_C, 1 - strength_C, rtol=1e-4, err_msg=name)
    np.testing.assert_array_equal(alone_KC[3], strength_C)
    assert len(alone_KC) == 10
    assert score_C[strength_C > 0].min() >= score_C[strength_C == 0].max()
    with (
        np.load(request.folder / "gallery.npz") as gallery,
        np.load(request.folder / "outputs.npz") as outputs,
    ):
        assert set(outputs["labels/forget_test"][gallery["rows/forget_test"]]) == {3}
        assert len(set(outputs["labels/retain_test"][gallery["rows/retain_test"]])) == SHOWN


def test_a_class_without_images_has_no_channels():
    counts = torch.tensor([3.0, 0.0, 2.0])
    found = record_edits(
        ["a", "b"], counts, (2,),
        scores=lambda classes: [torch.full((4,), float(classes[0]))] * 2,
        strengths=lambda classes: [torch.full((4,), 0.1 + classes[0]), torch.ones(4)],
    )  # fmt: skip
    assert list(found) == ["a", "b"]
    torch.testing.assert_close(found["a"].alone_KC[:, 0], torch.tensor([0.1, 0.0, 2.1]))
    torch.testing.assert_close(found["b"].alone_KC[:, 0], torch.tensor([1.0, 0.0, 1.0]))
    assert found["a"].strength_C[0] == pytest.approx(2.1)


def test_a_method_without_channels_writes_no_file(tmp_path: Path):
    save_channels({}, tmp_path / "channels.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (100, 3), (100, 1)])
def test_images_are_few_small_and_those_of_their_rows(tmp_path: Path, size: int, channels: int):
    labels = np.arange(200) % 5
    images = np.broadcast_to(
        np.arange(200, dtype=np.uint8)[:, None, None, None], (200, size, size, channels)
    )
    splits = make_splits(labels, labels, forget=[2])
    save_gallery(ImageSet(images, labels), splits, tmp_path / "gallery.npz")
    with np.load(tmp_path / "gallery.npz") as gallery:
        for split in ("forget_test", "retain_test"):
            rows, shown = gallery[f"rows/{split}"], gallery[f"images/{split}"]
            assert len(set(rows.tolist())) == SHOWN
            assert shown.shape == (SHOWN, min(size, 64), min(size, 64), channels)
            np.testing.assert_array_equal(shown[:, 0, 0, 0], splits[split][rows])
