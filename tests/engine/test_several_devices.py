"""Training on several devices, shown with two processes on the CPU."""

from collections.abc import Callable

import pytest
import torch

from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.fit import Fit, fit_on_several_devices
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained, stored_model
from orthounlearn.engine.unlearn import unlearn
from orthounlearn.errors import UsageError

DDP = (
    "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false",
    "forget=3", "metrics.reference=none",
)  # fmt: skip


def test_two_processes_train_one_network_and_this_one_audits_all_images(open_job: Callable):
    experiment = open_job(*DDP, "method=fine_tune", "method.epochs=1")
    stored = ensure_trained(experiment, seed=0)
    assert stored.is_trained
    assert not torch.distributed.is_initialized()
    outputs = predict(experiment, stored.load(experiment), experiment.splits((3,)))
    assert len(outputs.labels["retain_test"]) == len(experiment.splits((3,)).retain_test)
    metrics = unlearn(open_request(experiment))  # its own fit runs in this process
    assert metrics["unlearned/acc/forget_train"] is not None


def test_failure_of_the_processes_is_told(open_job: Callable):
    experiment = open_job(*DDP, "recipe.image_sizes=[8]")
    stored = stored_model(experiment, seed=0)
    with pytest.raises(UsageError, match="several devices failed"):
        fit_on_several_devices(experiment, Fit(stored.folder, stored.key, (), 0))
    assert not stored.is_trained


def test_number_of_devices_is_part_of_the_key(open_job: Callable):
    keys = {stored_model(open_job(*o), seed=0).key for o in ((), DDP, (*DDP, "trainer.devices=3"))}
    assert len(keys) == 3
