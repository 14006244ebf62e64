"""The audit as a torchmetrics metric: batches add up to what the audit says of the whole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing import spawn
from torch.utils.data import DataLoader, TensorDataset

from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.lit.audit import UnlearningAudit
from orthounlearn.metrics import suite
from orthounlearn.metrics.sample import Sample
from orthounlearn.metrics.suite import AUDITED, CLASSIFIER, Outputs, audit
from tests.metrics.toy_outputs import NAMES, RETRAINED, full, outputs

LAYERS = ("1", "2", CLASSIFIER)


def feed(metric: UnlearningAudit, said: Outputs, splits: Sequence[str] = AUDITED) -> None:
    for split in splits:
        for rows in np.array_split(np.arange(len(said.labels[split])), 3):
            metric.update(
                split,
                torch.as_tensor(said.logits[split][rows]),
                torch.as_tensor(said.labels[split][rows]),
                {at: torch.as_tensor(h[rows]) for at, h in said.features[split].items()},
            )


def test_batches_add_up_to_the_audit_beside_its_references():
    before, ours = outputs(leak=3), outputs(leak=3, masked=True)
    metric = UnlearningAudit(
        forget=[0], class_names=NAMES, layers=LAYERS, original=before, retrained=[RETRAINED]
    )
    feed(metric, ours)
    found = {key: float(value) for key, value in metric.compute().items()}
    assert found == pytest.approx(full(ours, RETRAINED, before), nan_ok=True, rel=1e-6)
    assert found["probe/k50_index"] == 1


def test_what_it_has_seen_is_a_reference_for_another():
    metric = UnlearningAudit(forget=[0], class_names=NAMES, layers=LAYERS)
    feed(metric, RETRAINED)
    kept = metric.outputs()
    for split in AUDITED:
        assert np.array_equal(kept.logits[split], RETRAINED.logits[split])
        assert kept.features.get(split, {}).keys() == RETRAINED.features[split].keys()
    metric.reset()
    feed(metric, RETRAINED, AUDITED[:4])
    with pytest.raises(UsageError, match="got none of retain_test, forget_probe"):
        metric.compute()
    itself = UnlearningAudit(forget=[0], class_names=NAMES, layers=LAYERS, retrained=[kept])
    feed(itself, RETRAINED)
    assert itself.compute()["js/forget"] == 0


def on_its_half(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    metric = UnlearningAudit(forget=[0], class_names=NAMES, layers=[CLASSIFIER])
    for split in AUDITED:
        rows = slice(rank, None, 2)
        metric.update(
            split,
            torch.as_tensor(RETRAINED.logits[split][rows]),
            torch.as_tensor(RETRAINED.labels[split][rows]),
            {at: torch.as_tensor(h[rows]) for at, h in RETRAINED.features.get(split, {}).items()},
        )
    joined, figures = metric.outputs(), metric.compute()
    torch.save({key: float(value) for key, value in figures.items()}, folder / f"{rank}.pt")
    assert np.array_equal(
        np.sort(joined.logits["forget_test"], axis=0),
        np.sort(RETRAINED.logits["forget_test"], axis=0),
    )
    dist.destroy_process_group()


@pytest.mark.slow  # two processes that import everything
def test_images_of_all_processes_count(tmp_path: Path):
    spawn(on_its_half, (tmp_path,), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert one == pytest.approx(other, nan_ok=True, abs=0)
    alone = audit(RETRAINED, forget=[0], class_names=NAMES)
    for key in ("acc/retain_test", "loss/forget_test", "mia/pop_margin/auc"):
        assert one[key] == pytest.approx(alone[key], rel=1e-6)


class Auditing(LightningModule):
    """A user's own module: the split is the number of the loader."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU())
        self.head = nn.Linear(5, 4)
        self.audit = UnlearningAudit(forget=[0], class_names=NAMES, layers=[CLASSIFIER])

    def test_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int) -> None:  # noqa: ARG002
        images, labels = batch
        maps = self.net(images)
        logits = self.head(maps.mean((2, 3)))
        self.audit.update(AUDITED[dataloader_idx], logits, labels, {CLASSIFIER: maps})

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.audit.compute())


def test_in_a_module_of_ones_own(tmp_path: Path):
    torch.manual_seed(0)
    loaders = []
    for split in AUDITED:
        forgotten = split.startswith("forget")
        labels = torch.zeros(60, dtype=torch.long) if forgotten else torch.arange(60) % 3 + 1
        images = torch.randn(60, 1, 8, 8) + labels[:, None, None, None]
        loaders.append(DataLoader(TensorDataset(images, labels), batch_size=25))
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    module = Auditing()
    trainer.test(module, loaders, verbose=False)
    figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    said = module.audit.outputs()
    assert said.features["forget_test"][CLASSIFIER].shape == (60, 5)  # pooled
    expected = audit(said, forget=[0], class_names=NAMES)
    assert figures == pytest.approx(expected, nan_ok=True, rel=1e-6)


@pytest.mark.parametrize("forget", [[], [4], [-1], [0, 1, 2, 3]])
def test_classes_have_to_be_there_and_some_to_stay(forget: list[int]):
    with pytest.raises(UsageError, match="Expected some, not all, of the classes 0 to 3"):
        UnlearningAudit(forget=forget, class_names=NAMES)


def test_what_does_not_fit_is_refused_and_nothing_of_it_is_kept():
    metric = UnlearningAudit(forget=[0], class_names=NAMES, layers=[CLASSIFIER])
    logits, labels = torch.zeros(2, 4), torch.zeros(2, dtype=torch.long)
    features = {CLASSIFIER: torch.zeros(2, 3)}
    with pytest.raises(UsageError, match="Expected a split out of forget_train"):
        metric.update("test", logits, labels, features)
    with pytest.raises(UsageError, match=r"logits of shape \(2, 4\)"):
        metric.update("forget_test", logits[:, :3], labels, features)
    with pytest.raises(UsageError, match="features of 'classifier' on forget_test, got none"):
        metric.update("forget_test", logits, labels)
    assert not any(len(state) for state in metric.metric_state.values())


def test_a_logit_masked_by_infinity_and_features_that_were_blown_up_are_audited():
    """The cheapest way of hiding a class has to be audited, not refused."""
    known, masked = outputs(leak=3), outputs(leak=3)
    for split in AUDITED:
        masked.logits[split][:, 0] = -np.inf
    metric = UnlearningAudit(
        forget=[0], class_names=NAMES, layers=LAYERS, original=known, retrained=[RETRAINED]
    )
    feed(metric, masked)
    figures = metric.compute()
    assert figures["acc/forget_test"] == 0
    assert figures["probe/k50_index"] == 1
    huge = torch.full((2, 3), 1e30)
    metric.update(
        "forget_test", torch.zeros(2, 4), torch.zeros(2).long(), dict.fromkeys(LAYERS, huge)
    )
    assert torch.isfinite(metric.metric_state[f"forget_test_{CLASSIFIER}"][-1]).all()


def test_nan_is_a_divergence():
    metric = UnlearningAudit(forget=[0], class_names=NAMES)
    feed(metric, RETRAINED)
    metric.update("retain_test", torch.full((1, 4), torch.nan), torch.ones(1).long())
    with pytest.raises(DivergedError, match="nan on retain_test"):
        metric.compute()


def test_references_are_measured_once(monkeypatch: pytest.MonkeyPatch):
    """In a loop it computes after every epoch; the references do not change."""
    seen: list[Outputs] = []
    plain = suite.samples

    def watched(said: Outputs, **options: object) -> dict[str, Sample]:
        seen.append(said)
        return plain(said, **options)

    monkeypatch.setattr(suite, "samples", watched)
    metric = UnlearningAudit(forget=[0], class_names=NAMES, retrained=[RETRAINED])
    found = []
    for _ in range(2):
        feed(metric, outputs(leak=3))
        found.append({key: float(value) for key, value in metric.compute().items()})
        metric.reset()
    assert sum(said is RETRAINED for said in seen) == 1
    assert found[0] == pytest.approx(found[1], nan_ok=True, abs=0)
