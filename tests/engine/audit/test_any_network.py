"""The audit of a file, whoever made it: nothing of it is taken for granted, nothing is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from orthounlearn.data.images import ImageData, ImageSet
from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.audit.relearn import cached_relearn
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import Request, open_request
from orthounlearn.engine.store import ensure_trained, stored_model
from orthounlearn.engine.unlearn import evaluate, unlearn
from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.files import file_digest
from orthounlearn.metrics.comparison import neighbour_samples
from orthounlearn.metrics.relearn import Accuracies
from orthounlearn.metrics.suite import Outputs
from orthounlearn.report.certificate import ELSEWHERE, OTHER_RECIPE

SHORT = ("forget=3", "recipe.epochs=4", "metrics=fast")


def trained(open_shared, seed: int = 0, without: tuple[int, ...] = ()) -> Path:
    experiment = open_shared(*SHORT)
    return ensure_trained(experiment, seed=seed, without=without).checkpoint


def edited(path: Path, to: Path, bias_of_3: float, scale: float = 1.0) -> Path:
    state = torch.load(path, weights_only=True)["state_dict"]
    state["classifier.bias"][3] = bias_of_3
    state["classifier.weight"] *= scale
    torch.save(state, to)
    return to


def opened(open_shared, checkpoint: Path, *more: str) -> Request:
    return open_request(open_shared(*SHORT, f"checkpoint={checkpoint}", *more, job="evaluate"))


def record(request: Request) -> dict:
    return json.loads((request.folder / "audit.json").read_text())


def test_a_logit_masked_by_infinity_is_audited_like_one_masked_by_a_number(open_shared, tmp_path):
    original = trained(open_shared)
    found = {}
    for bias in (-1e4, -np.inf):
        masked = edited(original, tmp_path / f"{bias}.pt", bias)
        found[bias] = evaluate(opened(open_shared, masked, f"original={original}"))
    finite, infinite = found.values()
    assert infinite["unlearned/acc/forget_test"] == 0
    for key, value in finite.items():
        if key.startswith(("unlearned/acc/", "unlearned/probe/k10", "unlearned/mia/pop_rest")):
            assert infinite[key] == value, key


@pytest.mark.parametrize(("bias", "scale"), [(np.inf, 1.0), (np.nan, 1.0), (0.0, 1e38)])
def test_what_cannot_be_logits_is_refused(open_shared, tmp_path, bias: float, scale: float):
    broken = edited(trained(open_shared), tmp_path / "broken.pt", bias, scale)
    with pytest.raises(DivergedError, match=r"puts out (nan|infinity) on"):
        evaluate(opened(open_shared, broken))


def test_other_images_are_another_audit(open_shared, monkeypatch: pytest.MonkeyPatch):
    checkpoint = trained(open_shared)
    experiment = open_shared(*SHORT, f"checkpoint={checkpoint}", job="evaluate")
    data = experiment.data
    darker = ImageSet(data.train.images_NHWC // 2, data.train.labels_N)
    fields = {name: getattr(data, name) for name in data.__dataclass_fields__ if name != "train"}
    changed = Experiment(experiment.config, ImageData(train=darker, **fields))
    monkeypatch.setitem(changed.data.__dict__, "fingerprint", "another")
    assert open_request(changed).key != open_request(experiment).key


def test_the_certificate_names_the_original_and_not_the_audited_file(open_shared, tmp_path):
    original = trained(open_shared)
    masked = edited(original, tmp_path / "masked.pt", -1e4)
    with_it = opened(open_shared, masked, f"original={original}")
    evaluate(with_it)
    assert record(with_it)["subject"]["original"] == file_digest(original)
    assert (
        f"| Original | {file_digest(original)} |" in (with_it.folder / "certificate.md").read_text()
    )
    without = opened(open_shared, masked)
    evaluate(without)
    assert record(without)["subject"]["original"] is None
    assert "| Original | not recorded |" in (without.folder / "certificate.md").read_text()


def test_a_run_that_was_interrupted_before_its_certificate_gets_one(open_shared):
    request = opened(open_shared, trained(open_shared))
    evaluate(request)
    before = record(request)
    for name in ("audit.json", "certificate.md", "certificate.html"):
        (request.folder / name).unlink()
    evaluate(request)
    assert record(request)["figures"] == before["figures"]
    assert (request.folder / "certificate.html").exists()


def test_a_network_is_no_reference_for_itself(open_shared):
    request = opened(open_shared, trained(open_shared, without=(3,)))
    assert request.reference_seeds == (0,)
    evaluate(request)
    verdict = record(request)["verdict"]
    assert verdict["headline"] == "incomplete"
    assert all("is this very network" in reasons[-1] for reasons in verdict["not_given"].values())
    assert len(verdict["not_given"]) == 4


def test_own_retrained_networks_take_the_place_of_ours(open_shared, tmp_path):
    ours = trained(open_shared, without=(3,))
    theirs = [trained(open_shared, seed=seed, without=(3,)) for seed in (1, 2)]
    files = [edited(path, tmp_path / f"without_{i}.pt", -2.0) for i, path in enumerate(theirs)]
    request = opened(open_shared, ours, f"retrained=[{files[0]},{files[1]}]")
    metrics = evaluate(request)
    told = record(request)
    assert [entry["key"] for entry in told["references"]["retrained"]] == [
        file_digest(path) for path in files
    ]
    assert OTHER_RECIPE not in told["verdict"]["cautions"]
    assert ELSEWHERE in told["verdict"]["cautions"]
    stored = opened(open_shared, ours, "metrics.reference_seeds=[1,2]")
    assert stored.key != request.key
    of_stored = evaluate(stored)
    assert OTHER_RECIPE in record(stored)["verdict"]["cautions"]
    key = "retrained/acc/retain_test"
    assert metrics[key] == pytest.approx(of_stored[key], abs=0.02)  # the same but for a bias


@pytest.mark.parametrize("option", ["original", "retrained"])
def test_references_are_of_the_job_evaluate_alone_and_have_to_be_there(open_shared, option: str):
    with pytest.raises(UsageError, match=f"Expected {option} to be a file, but .* is not there"):
        opened(open_shared, trained(open_shared), f"{option}={_value(option, 'nowhere')}")
    given = f"{option}={_value(option, str(trained(open_shared)))}"
    with pytest.raises(UsageError, match=f"Expected {option}= in the job evaluate alone"):
        open_request(open_shared(*SHORT, f"+{given}" if option == "retrained" else given))


def _value(option: str, path: str) -> str:
    return f"[{path}]" if option == "retrained" else path


def test_a_folder_is_told_from_what_is_not_there(open_shared, tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        opened(open_shared, tmp_path)


def test_a_request_that_cannot_be_audited_is_refused_before_anything_is_written(open_shared):
    with pytest.raises(UsageError, match=r"images of retain_val .* data\.val_fraction=0\.1"):
        open_request(open_shared(*SHORT, "data.val_fraction=0"))
    with pytest.raises(UsageError, match=r"metrics\.max_images=3 leaves none of"):
        open_request(open_shared(*SHORT, "metrics.max_images=3"))


def test_a_damaged_curve_is_measured_again(open_shared, caplog: pytest.LogCaptureFixture):
    experiment = open_shared("metrics=standard", *SHORT[:2])
    trained(open_shared)
    stored = stored_model(experiment, seed=0)
    settings = dict(
        experiment.config["metrics"]["relearn"], steps=2, every=2, learning_rates=[0.01]
    )
    options = (experiment, stored, experiment.splits((3,)), settings)
    before = cached_relearn(*options, original=Accuracies(1.0, 1.0))
    (path,) = stored.folder.glob("relearn-*.npz")
    path.write_bytes(path.read_bytes()[:100])
    again = cached_relearn(*options, original=Accuracies(1.0, 1.0))
    assert "is damaged" in caplog.text
    for name, curve in before.curves.items():
        np.testing.assert_array_equal(again.curves[name].forget_S, curve.forget_S)


def test_a_damaged_stored_network_says_how_to_get_another(open_shared):
    experiment = open_shared(*SHORT, "seed=7")
    stored = ensure_trained(experiment, seed=7)
    stored.checkpoint.write_bytes(stored.checkpoint.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"delete .*, and it is trained again"):
        unlearn(open_request(experiment))


def test_with_two_classes_there_is_no_neighbour_to_attack_by():
    rng = np.random.default_rng(0)
    logits = {s: rng.normal(size=(8, 2)).astype(np.float32) for s in ("forget_test", "retain_test")}
    labels = {"forget_test": np.zeros(8, int), "retain_test": np.ones(8, int)}
    outputs = Outputs(logits, labels)
    assert neighbour_samples([outputs], [outputs]) == [{}]


def test_infinity_is_replaced_by_what_is_as_good_as_that(open_shared, tmp_path):
    """Other logits are not touched, and the masked class has probability 0."""
    experiment = open_shared(*SHORT)
    original = trained(open_shared)
    net = stored_model(experiment, seed=0).load(experiment)
    plain = predict(experiment, net, experiment.splits((3,)), ["forget_test"])
    masked = edited(original, tmp_path / "m.pt", -np.inf)
    net.load_state_dict(torch.load(masked, weights_only=True))
    found = predict(experiment, net, experiment.splits((3,)), ["forget_test"])
    others = np.arange(10) != 3
    np.testing.assert_array_equal(
        found.logits["forget_test"][:, others], plain.logits["forget_test"][:, others]
    )
    assert (np.exp(found.logits["forget_test"][:, 3]) == 0).all()
