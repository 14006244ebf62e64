"""Every file in conf/ composes, builds, and says what it is."""

from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from orthounlearn.config import CONF_DIR
from orthounlearn.config.build import build, compose_job, compose_variants, validate_targets
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained
from tests.data.test_sources import make_folder

GROUPS = {
    group: sorted(path.stem for path in Path(CONF_DIR, group).glob("*.yaml"))
    for group in ("data", "model", "regularizer", "optimizer", "scheduler", "recipe", "trainer",
                  "callbacks", "logger", "method", "methods", "metrics", "experiment")
}  # fmt: skip
CHOICES = [(group, name) for group, names in GROUPS.items() for name in names]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_its_targets_accept_their_options(
    open_job, group: str, name: str
):
    if group == "experiment":
        config = open_job(f"experiment={name}", "data=digits", "+model={}").config
    elif group == "data":
        pytest.skip("needs the data; see the one-batch runs")
    else:
        more = ["+model._target_=torch.nn.Identity"] if name == "custom" else []
        config = open_job(f"{group}={name}", *more).config
    validate_targets(config)


@pytest.mark.parametrize("path", sorted(Path(CONF_DIR).rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_file_starts_by_saying_what_it_is(path: Path):
    first = path.read_text().splitlines()[0]
    named = {"name", "defaults"} & set(yaml.safe_load(path.read_text()) or ())
    assert first.startswith("#") or named


@pytest.mark.parametrize("name", GROUPS["regularizer"])
def test_regularizers_are_named_like_their_files(open_job, name: str):
    assert open_job(f"regularizer={name}").config["regularizer"]["name"] == name


@pytest.mark.parametrize("name", [n for n in GROUPS["model"] if n != "custom"])
def test_models_are_named_like_their_files(open_job, name: str):
    experiment: Experiment = open_job(f"model={name}", "model.width=4")
    assert experiment.model_name == name
    experiment.new_net(0)


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_experiment_axes_name_things_that_exist(open_job, name: str):
    config = open_job(f"experiment={name}", "data=digits").config
    for node in (config["table"], config["tune"]):
        assert set(node["models"]) <= set(GROUPS["model"])
        assert set(node["regularizers"]) <= set(GROUPS["regularizer"])
    assert set(config["table"]["methods"]) <= set(GROUPS["method"])
    table, tune = config["table"], config["tune"]
    same_classes = [f for f in tune["forget"] if table["forget"] == "all" or f in table["forget"]]
    assert not same_classes or config["seed"] not in table["seeds"], "tuned on what is reported"


def test_the_long_table_has_every_method_once_and_the_ablation_its_parts():
    every, parts = (
        yaml.safe_load(Path(CONF_DIR, "methods", f"{name}.yaml").read_text())["methods"]
        for name in ("all", "ablation")
    )
    assert sorted({*every, *parts}) == GROUPS["method"]
    assert len(set(every)) == len(every)
    beside = {name for name in parts if name not in every}
    assert all(name.startswith("class_transport_") for name in beside)


SIZES = {"cifar10": 32, "cifar100": 32, "tiny_imagenet": 64, "fashion_mnist": 28}


@pytest.mark.parametrize("name", [n for n in GROUPS["experiment"] if n != "digits_cpu"])
def test_one_batch_of_every_experiment_runs(open_by_all, name: str, tmp_path: Path):
    """Full-size presets cannot be trained here; one batch of each network can.

    Experiments on the same networks train them once, in a folder that they share.
    """
    data = next(data for data in SIZES if name.startswith(f"{data}_"))
    root = make_folder(tmp_path / data, size=(SIZES[data],) * 2, classes="abc")
    one_batch = (
        "trainer.accelerator=cpu", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
        "recipe.epochs=1", "recipe.batch_size=4", "recipe.image_sizes=null", f"data.root={root}",
        "data.val_fraction=0.25", "~model.width",
    )  # fmt: skip
    models = open_by_all(f"experiment={name}", "data=digits").config["table"]["models"]
    for model in models:
        experiment = open_by_all(f"experiment={name}", f"model={model}", *one_batch)
        assert ensure_trained(experiment, seed=0).is_trained


def test_a_network_of_ones_own_needs_no_code_here(open_job):
    experiment = open_job(
        "model=custom", "~model.width", "model._target_=torchvision.models.mobilenet_v2",
        "model.name=mobile", "+model.width_mult=0.25",
    )  # fmt: skip
    net = experiment.new_net(0)
    assert (experiment.model_name, net.classifier[1].out_features) == ("mobile", 10)


def test_build_refuses_what_is_of_another_kind():
    with pytest.raises(Exception, match="to make a Path"):
        build({"_target_": "collections.Counter"}, Path)


def test_variants_are_what_composing_each_would_give(open_job):
    open_job()  # registers the schema
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        shared = ["experiment=digits_cpu", "method=retrain", "++method.seed_offset=${seed}"]
        variants = [{"seed": seed, "forget": forget} for seed in (0, 4) for forget in ([3], [1, 2])]
        found = compose_variants("unlearn", shared, variants)
        for config, values in zip(found, variants, strict=True):
            chosen = [f"seed={values['seed']}", f"forget={values['forget']}"]
            assert config == compose_job("unlearn", [*shared, *chosen])
    assert [config["method"]["seed_offset"] for config in found] == [0, 0, 4, 4]


def test_a_tables_seeds_are_its_reference_seeds(open_job):
    """So that a retrained network in a table has others beside itself to be compared with."""
    open_job()  # registers the schema
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF_DIR, version_base="1.3"):

        def seeds(*overrides: str) -> list[int]:
            return compose_job("unlearn", [*overrides])["metrics"]["reference_seeds"]

        assert seeds("experiment=digits_cpu", "table.seeds=[3,5]") == [3, 5]
        assert seeds("experiment=digits_cpu", "metrics.reference_seeds=[1]") == [1]
        assert seeds("experiment=digits_cpu", "metrics=full") == [0, 1]
        assert seeds() == []
