"""Run directories without training: what a sweep leaves behind, with figures that are known."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from orthounlearn.files import write_json
from orthounlearn.metrics.roc import CURVE_FPR
from orthounlearn.report.collect import Run, read_runs

CLASSES = ("ant", "bee", "cat", "dog")
METHODS = ("original", "retrain", "mask_logit", "soft_prune", "fine_tune")
# By method: what is added to the logit of a forgotten class, and what the figures say.
_KNOWN = dict(zip(METHODS, (3.0, -3.0, -40.0, -1.0, 0.0), strict=True))
_RETAINED = dict(zip(METHODS, (0.90, 0.91, 0.92, 0.88, 0.80), strict=True))
_INDEX = dict(zip(METHODS, (1.0, 0.0, 1.0, 0.9, -0.5), strict=True))
_SECONDS = dict(zip(METHODS, (1e-6, 60.0, 1e-4, 3e-5, 5.0), strict=True))
_HEADLINES = ("head_only", "under_unlearned", "ok")
_IMAGES = {"forget_train": 60, "forget_test": 40, "retain_train": 90, "retain_test": 30}
_ENVIRONMENT = {"command": "orthounlearn sweep", "device": "cpu", "git": "abc", "python": "3.11",
                "platform": "Linux", "versions": {"torch": "9.9"}}  # fmt: skip


def write_runs(
    root: Path, *, models: Sequence[str] = ("netA", "netB"), methods: Sequence[str] = METHODS,
    forgets: Sequence[str] = ("cat", "dog"), seeds: Sequence[int] = (0, 1),
    classes: Sequence[str] = CLASSES, outputs: bool = True,
) -> list[Run]:  # fmt: skip
    """Write runs and return them as the report reads them."""
    folders = []
    for model, method, forget, seed in product(models, methods, forgets, seeds):
        folder = root / "toy" / f"{model}_so" / f"seed{seed}" / forget / f"run{len(folders)}"
        folder.mkdir(parents=True)
        folders.append(folder)
        names = {"data": "toy", "model": model, "regularizer": "so", "method": method}
        more = {"seed": seed, "forget": [forget], "after": [], "classes": list(classes)}
        rest = {"environment": _ENVIRONMENT, "images": _IMAGES}
        write_json(folder / "run.json", names | more | rest)
        whose = {"unlearned": method, "original": "original", "retrained": "retrain"}
        metrics = {
            f"{phase}/{key}": value
            for phase, one in whose.items()
            for key, value in figures(one, forget, seed, classes).items()
        }
        write_json(folder / "metrics.json", metrics)
        if outputs:
            write_views(folder, method, list(classes).index(forget), len(classes))
            write_outputs(folder, method, list(classes).index(forget), seed, len(classes))
    runs, problems = read_runs(folders)
    assert problems == []
    return runs


def figures(method: str, forget: str, seed: int, classes: Sequence[str]) -> dict[str, float]:
    kept = [name for name in classes if name != forget]
    headline = {"original": "under_unlearned", "mask_logit": "head_only"}.get(method, "ok")
    return {
        "acc/retain_test": _RETAINED[method] + 0.01 * seed,
        "acc/forget_test": float(method == "original"),
        "probe/k50": 0.5 + 0.3 * _INDEX[method],
        "probe/k50_index": _INDEX[method],
        "mia/pop_margin/auc": 0.5 + 0.1 * _INDEX[method],
        "mia/pop_margin/auc_gap": 0.1 * _INDEX[method],
        "time/prep_s": 1.0,
        "time/unlearn_s": _SECONDS[method],
        **{f"acc/retain_test_per_class/{name}": _RETAINED[method] for name in kept},
        **{f"pred/forget_hist/{name}": (name in kept) / len(kept) for name in classes},
        **{f"depth/{block}": 0.2 * block for block in (1, 2, 3)},
        **{
            f"cka/{which}/{kind}/{block}": 1 - 0.02 * block
            for which in ("original", "retrained")
            for kind in ("forget", "retain")
            for block in (1, 2, 10)
        },
        **{f"verdict/{name}": float(name == headline) for name in _HEADLINES},
    }


def write_views(folder: Path, method: str, forget: int, count: int) -> None:
    """Write pictures, and for soft pruning channels: class k alone would lose k and k + 1."""
    shape = (5, 6, 6, 3)
    rows = np.array([0, 7, 14, 21, 28])
    pictures = {
        f"images/{split}": np.full(shape, 40 * place + 60, dtype=np.uint8)
        for place, split in enumerate(("forget_test", "retain_test"))
    }
    np.savez(
        folder / "gallery.npz",
        **pictures,
        **{f"rows/{split}": rows for split in ("forget_test", "retain_test")},
    )
    if method == "soft_prune":
        alone = np.eye(count, count + 1) + np.eye(count, count + 1, 1) / 2
        layers = {"early": alone, "late": np.pad(alone, ((0, 0), (0, 4)))}
        arrays = {f"alone/{name}": table for name, table in layers.items()}
        arrays |= {f"strength/{name}": table[forget] for name, table in layers.items()}
        arrays |= {f"score/{name}": 3 * table[forget] - 1 for name, table in layers.items()}
        np.savez(folder / "channels.npz", **arrays)


def write_outputs(folder: Path, method: str, forget: int, seed: int, count: int) -> None:
    """Write logits: the forgotten class has a known advantage, all others are recognised."""
    rng = np.random.default_rng([seed, METHODS.index(method)])
    arrays = {}
    kept = np.setdiff1d(np.arange(count), [forget])
    labels = {"forget_train": np.full(60, forget), "forget_test": np.full(40, forget),
              "retain_test": np.repeat(kept, 10)}  # fmt: skip
    for split, labels_N in labels.items():
        logits_NK = rng.normal(0, 0.5, (len(labels_N), count))
        right = np.where(labels_N == forget, _KNOWN[method], 6.0)
        logits_NK[np.arange(len(labels_N)), labels_N] += right
        arrays |= {f"logits/{split}": logits_NK.astype(np.float32), f"labels/{split}": labels_N}
    np.savez(folder / "outputs.npz", **arrays)
    steps = np.arange(0, 50, 10)
    curve = {
        "steps": steps,
        "forget": steps / 50 * (method != "retrain"),
        "retain": np.full(5, 0.9),
    }
    told = {f"unlearned/relearn/lr0.01/{name}": values for name, values in curve.items()}
    told |= {f"original/relearn/lr0.01/{name}": values + 1 for name, values in curve.items()}
    for place, attack in enumerate(("mia/pop_margin", "rmia")):
        curve_T = CURVE_FPR ** (1 - 0.5 * _INDEX[method] - 0.1 * place - 0.01 * seed)
        told[f"unlearned/roc/{attack}"] = np.where(CURVE_FPR < 1 / 40, np.nan, curve_T)
    np.savez(folder / "curves.npz", **told)
