"""Run directories without training: what a sweep leaves behind, with figures that are known."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from orthounlearn.files import write_json
from orthounlearn.report.collect import Run, read_runs

CLASSES = ("ant", "bee", "cat", "dog")
METHODS = ("original", "retrain", "mask_logit", "soft_prune", "fine_tune")
_KNOWN = {
    "original": 3.0,
    "retrain": -3.0,
    "mask_logit": -40.0,
    "soft_prune": -1.0,
    "fine_tune": 0.0,
}
_RETAINED = {
    "original": 0.90,
    "retrain": 0.91,
    "mask_logit": 0.92,
    "soft_prune": 0.88,
    "fine_tune": 0.80,
}
_INDEX = {"original": 1.0, "retrain": 0.0, "mask_logit": 1.0, "soft_prune": 0.9, "fine_tune": -0.5}
_SECONDS = {"original": 1e-6, "retrain": 60.0, "mask_logit": 1e-4, "soft_prune": 3e-5, "fine_tune": 5.0}  # fmt: skip


def write_runs(
    root: Path, *, models: Sequence[str] = ("netA", "netB"), methods: Sequence[str] = METHODS,
    forgets: Sequence[str] = ("cat", "dog"), seeds: Sequence[int] = (0, 1),
    classes: Sequence[str] = CLASSES, outputs: bool = True,
) -> list[Run]:  # fmt: skip
    """Write runs and return them as the report reads them."""
    folders = []
    for model, method, forget, seed in product(models, methods, forgets, seeds):
        folder = (
            root
            / "toy"
            / f"{model}_so"
            / f"seed{seed}"
            / f"forget-{forget}"
            / f"run-{len(folders)}"
        )
        folder.mkdir(parents=True)
        folders.append(folder)
        environment = {"command": f"orthounlearn sweep {model}", "device": "cpu", "git": "abc",
                       "python": "3.11", "platform": "Linux", "versions": {"torch": "9.9"}}  # fmt: skip
        write_json(folder / "run.json", {
            "data": "toy", "model": model, "regularizer": "so", "seed": seed, "method": method,
            "forget": [forget], "after": [], "classes": list(classes), "environment": environment,
            "images": {"forget_test": 40}})  # fmt: skip
        ours = figures(method, forget, seed, classes)
        phases = {"unlearned": ours, "original": figures("original", forget, seed, classes),
                  "retrained": figures("retrain", forget, seed, classes)}  # fmt: skip
        write_json(folder / "metrics.json",
                   {f"{p}/{k}": v for p, values in phases.items() for k, v in values.items()})  # fmt: skip
        if outputs:
            write_outputs(folder, method, list(classes).index(forget), seed, len(classes))
    runs, problems = read_runs(folders)
    assert problems == []
    return runs


def figures(method: str, forget: str, seed: int, classes: Sequence[str]) -> dict[str, float]:
    kept = [name for name in classes if name != forget]
    headline = {"original": "under_unlearned", "mask_logit": "head_only"}.get(method, "ok")
    return {
        "acc/retain_test": _RETAINED[method] + 0.01 * seed, "acc/forget_test": float(method == "original"),
        "probe/k50": 0.5 + 0.3 * _INDEX[method], "probe/k50_index": _INDEX[method],
        "mia/pop_margin/auc": 0.5, "time/prep_s": 1.0, "time/unlearn_s": _SECONDS[method],
        **{f"acc/retain_test_per_class/{name}": _RETAINED[method] for name in kept},
        **{f"pred/forget_hist/{name}": 1 / len(kept) if name in kept else 0.0 for name in classes},
        **{f"depth/{block}": 0.2 * block for block in (1, 2, 3)},
        **{f"verdict/{name}": float(name == headline) for name in ("head_only", "under_unlearned", "ok")},
    }  # fmt: skip


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
    np.savez(folder / "relearn.npz", **{f"lr0.01/{name}": values for name, values in curve.items()})
