"""Outputs of stored networks: computed once, read ever after, computed again when damaged."""

import logging
from pathlib import Path

import numpy as np
import pytest

from orthounlearn.engine.audit.predict import cached_outputs, load_outputs
from orthounlearn.errors import UsageError


@pytest.mark.parametrize("damage", [b"", b"no archive", 0.5])
def test_damaged_outputs_are_computed_again(
    open_job, tmp_path: Path, damage: bytes | float, caplog: pytest.LogCaptureFixture
):
    experiment = open_job("metrics.max_images=20")
    net, splits = experiment.new_net(0), experiment.splits([3])
    names = ("forget_test", "retain_val")
    before = cached_outputs(experiment, lambda: net, splits, tmp_path, names)
    (path,) = tmp_path.glob("outputs-*.npz")
    whole = path.read_bytes()
    path.write_bytes(damage if isinstance(damage, bytes) else whole[: int(len(whole) * damage)])
    with pytest.raises(UsageError, match="damaged"):
        load_outputs(path)
    with caplog.at_level(logging.WARNING):
        after = cached_outputs(experiment, lambda: net, splits, tmp_path, names)
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    for name in names:
        np.testing.assert_array_equal(after.logits[name], before.logits[name])
    assert load_outputs(path).logits.keys() == set(names)
