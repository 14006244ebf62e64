"""One run alone tells what its original and its retrained network said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.checkpoints import save_network
from orthounlearn.engine.references import SPLITS, save_references
from orthounlearn.engine.request import Request, open_request
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.unlearn import evaluate, unlearn
from orthounlearn.metrics.suite import Outputs
from orthounlearn.report.cases import ORIGINAL, RETRAIN, Case, make_cases
from orthounlearn.report.collect import read_runs
from orthounlearn.report.figures import details
from orthounlearn.report.figures.confusion import confusion
from orthounlearn.report.style import looks


def case_of(request: Request) -> Case:
    runs, problems = read_runs([request.folder])
    assert problems == []
    (case,) = make_cases(runs, looks([run.method for run in runs]))
    return case


@pytest.mark.parametrize("after", ["[]", "[[5]]"])
def test_a_run_alone_shows_what_came_before_and_what_retraining_gives(
    open_job: Callable, after: str
):
    experiment = open_job(
        *("forget=3", f"after={after}", "method=mask_logit", "metrics.reference=train")
    )
    request = open_request(experiment)
    unlearn(request)
    case = case_of(request)
    gone = request.splits.forget
    stored = {
        ORIGINAL: ensure_trained(experiment, seed=0),
        RETRAIN: ensure_trained(experiment, without=gone, seed=0),
    }
    for method, network in stored.items():
        said = predict(experiment, network.load(experiment), request.splits)
        for split in SPLITS:
            ((told_NK, labels_N),) = case.answers(method, split)
            logits_NK, truth_N = said[split]
            np.testing.assert_array_equal(labels_N, truth_N)
            shares = [torch.tensor(one).softmax(1).numpy() for one in (told_NK, logits_NK)]
            np.testing.assert_allclose(*shares, atol=2e-3)
    assert confusion(case, RETRAIN)[:, list(gone)].sum() == 0
    assert confusion(case, ORIGINAL)[:, list(gone)].sum() > 50
    drawn = {figure.name: figure.draw(case) for figure in details()}
    titles = [note.text for note in drawn["confusion"].layout.annotations]
    assert titles == ["original", "after mask_logit", "retrain"]
    assert drawn["gallery"].layout.yaxis.ticktext[1:4] == ("original", "mask_logit", "retrain")
    assert {"original", "retrain"} <= {line.name for line in drawn["roc"].data}
    assert (request.folder / "references.npz").stat().st_size < 60_000


def test_of_a_network_from_elsewhere_the_original_is_the_file_that_was_named(
    open_job: Callable, tmp_path: Path
):
    experiment = open_job("forget=3", "metrics.reference=none")
    net = experiment.new_net(7)
    save_network(net, tmp_path / "net.ckpt", about={})
    files = (f"checkpoint={tmp_path / 'net.ckpt'}", f"original={tmp_path / 'net.ckpt'}")
    request = open_request(open_job("forget=3", "metrics.reference=none", *files, job="evaluate"))
    evaluate(request)
    case = case_of(request)
    ((told_NK, _),) = case.answers(ORIGINAL, "forget_test")
    ((own_NK, _),) = case.answers("evaluate", "forget_test")
    np.testing.assert_array_equal(told_NK.argmax(1), own_NK.argmax(1))
    assert case.answers(RETRAIN, "forget_test") == []


def test_large_and_absent_logits_are_kept_and_unknown_networks_are_not(tmp_path: Path):
    logits = {split: np.array([[1e6, -np.inf], [-3.0, 4.0]], np.float32) for split in SPLITS}
    path = tmp_path / "references.npz"
    save_references({"original": Outputs(logits, {}), "retrained": None}, path)
    with np.load(path) as stored:
        assert {key.partition("/")[0] for key in stored} == {"original"}
        said = stored["original/logits/forget_test"]
    assert said.dtype == np.float16
    assert said[0, 0] == 0
    assert said[0, 1] < -60_000
    np.testing.assert_array_equal(said[1], [-7, 0])
    save_references({"original": None, "retrained": None}, tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()
