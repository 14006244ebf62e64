"""The certificate of one audit: `audit.json` for programs, and one page for people.

Everything is read from the run directory; no network is opened. The page says what was measured and
on which images, what could not be judged, and what it does not prove.
"""

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import combinations
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from orthounlearn.data.splits import SPLIT_NAMES, Splits
from orthounlearn.errors import UsageError
from orthounlearn.files import file_digest, read_json, writing
from orthounlearn.metrics.catalog import Figure, figure
from orthounlearn.metrics.verdict import TITLES, Verdict, judge
from orthounlearn.report.certificate_page import pages

FORMAT = 1
"""Of `audit.json`: raised when a key changes its meaning."""

LIMITS = (
    "It does not prove that no trace is left. The attacks listed here were run and no others; each "
    "is a lower bound of what a stronger one finds, such as an attack with shadow models, on other "
    "layers, or by training on.",
    "It is about the one file and the images whose hashes it names: not about copies, backups, "
    "earlier checkpoints, networks distilled from them, or the images themselves.",
    "It says nothing of how the file was made: that it came from the method and the original named "
    "here is what the run directory says.",
    "Alike means that no difference was shown beyond what other images and another training may "
    "change. Fewer images show fewer differences.",
    "It is a measurement, not a legal opinion, and it is not signed: whoever can edit the file can "
    "edit what it says. Its hashes allow the audit to be repeated.",
)
"""What a certificate does not prove; printed on each."""

NO_SHADOWS = (
    "The shadow attacks that were asked for are not given: the network was unlearned elsewhere, "
    "and shadows would have to be unlearned in the same way. Membership rests on attacks without "
    "them, which find less."
)
"""Caution of an audit with metrics.shadows of a network that no method of ours has made."""

ELSEWHERE = (
    "The network was unlearned elsewhere. Probes and attacks take images of retain_val and of "
    "the test part for such that it was not trained on, and those of forget_train for such that it "
    "was; whether that is so, the file does not say."
)

OTHER_RECIPE = (
    "The retrained networks were trained by the recipe of this configuration. If the audited one "
    "was trained otherwise, that is a difference too; retrained=[FILE,…] compares with your own."
)
"""Cautions of an audit of a file."""

_SOURCES = ("config.yaml", "env.json", "metrics.json", "run.json", "splits.npz")
_OPTIONAL = ("outputs.npz", "retrained.json")
_ENVIRONMENT = ("versions", "python", "platform", "device", "git", "command")


@dataclass(frozen=True)
class _Audited:
    """What a run directory holds.

    Attributes:
        identity: Of run.json.
        environment: Of env.json.
        config: Of config.yaml.
        splits: Of splits.npz.
        unlearned: Key without phase -> value; undefined ones are left out. So are the next two.
        original: None if the run has no original.
        retrained: One for each retrained network.
        references: Seed and key of each retrained network, None where they are not known.
        files: Name -> SHA-256 of what was read.
    """

    identity: dict[str, Any]
    environment: dict[str, Any]
    config: dict[str, Any]
    splits: Splits
    unlearned: dict[str, float]
    original: dict[str, float] | None
    retrained: list[dict[str, float]]
    references: list[dict[str, Any]]
    files: dict[str, str]

    @property
    def images(self) -> dict[str, int]:
        return {name: len(self.splits[name]) for name in SPLIT_NAMES}


def write_certificate(folder: Path, *, command: str) -> Verdict:
    """Judge a finished run and write `audit.json`, `certificate.md` and `certificate.html` into it.

    All three are written, or none. Of the run directory are read config.yaml, env.json,
    metrics.json, run.json and splits.npz; retrained.json, a list of `{seed, key, figures}` of
    retrained networks, takes the place of the one in metrics.json; run.json may have `model_sha256`
    (the audited file's), `data_fingerprint` and `original` (that one's key or hash).

    Args:
        folder: The run directory.
        command: What asked for the certificate, for the record.

    Returns:
        The verdict that is written.

    Raises:
        UsageError: The run is not finished, its files are damaged, the network beside it is not the
            one that was audited, or the certificate cannot be written.
    """
    try:
        audited = _read(folder)
        verdict = _judge(audited)
        record = _record(audited, verdict, _model(folder, audited), command)
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise UsageError(
            f"Expected the files of a finished run in {folder}, but some are damaged "
            f"({type(error).__name__}: {error}). Delete the folder and run the job again."
        ) from error
    texts = {"audit.json": json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"}
    texts |= pages(record, verdict)
    with ExitStack() as files:
        for name, text in texts.items():
            files.enter_context(writing(folder / name)).write_text(text, encoding="utf-8")
    return verdict


def _judge(audited: _Audited) -> Verdict:
    """Return the verdict, with notes of what an audit of somebody else's network cannot know."""
    verdict = judge(
        audited.unlearned,
        audited.original,
        audited.retrained,
        images=audited.images,
        itself=any(entry["itself"] for entry in audited.references),
    )
    notes = []
    asked = audited.config["metrics"].get("shadows", 0)
    if asked and "shadows/count" not in audited.unlearned:
        notes.append(NO_SHADOWS)
    if not audited.config["method"]:
        notes.append(ELSEWHERE)
        if any(entry["seed"] is not None for entry in audited.references):
            notes.append(OTHER_RECIPE)
    return replace(verdict, cautions=(*verdict.cautions, *notes))


def _read(folder: Path) -> _Audited:
    missing = [name for name in _SOURCES if not (folder / name).is_file()]
    if missing:  # metrics.json is written last: without it the run is not whole
        raise UsageError(
            f"Expected {folder} to be the folder of a finished run, but it has no "
            f"{', '.join(missing)}. Run `orthounlearn unlearn` or `orthounlearn evaluate` first."
        )
    metrics, identity = read_json(folder / "metrics.json"), read_json(folder / "run.json")
    environment = read_json(folder / "env.json")
    references = _references(folder, metrics, identity)
    return _Audited(
        identity=identity,
        environment={key: environment[key] for key in _ENVIRONMENT},
        config=yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")),
        splits=Splits.load(folder / "splits.npz"),
        unlearned=_phase(metrics, "unlearned/"),
        original=_phase(metrics, "original/") or None,
        retrained=[_phase(entry["figures"]) for entry in references],
        references=[
            {"seed": entry["seed"], "key": entry["key"], "itself": entry.get("itself", False)}
            for entry in references
        ],
        files={
            name: file_digest(folder / name)
            for name in (*_SOURCES, *_OPTIONAL)
            if name in _SOURCES or (folder / name).exists()
        },
    )


def _phase(values: dict[str, float | None], prefix: str = "") -> dict[str, float]:
    return {
        key.removeprefix(prefix): float(value)
        for key, value in values.items()
        if key.startswith(prefix) and value is not None and isfinite(value)
    }


def _references(
    folder: Path, metrics: dict[str, float | None], identity: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return seed, key and figures of the retrained networks."""
    path = folder / "retrained.json"
    if path.exists():
        return list(read_json(path))
    alone = _phase(metrics, "retrained/")
    return [{"seed": identity["seed"], "key": None, "figures": alone}] if alone else []


def _model(folder: Path, audited: _Audited) -> dict[str, Any]:
    """Return name and hash of the audited network's file, and when the hash was taken.

    Raises:
        UsageError: The file in the run directory is not the one that was audited.
    """
    recorded = audited.identity.get("model_sha256")
    if not audited.config["method"]:  # somebody else's file, which may have changed since
        name = Path(audited.config["checkpoint"]).name
        return {"file": name, "sha256": recorded, "hash_taken": recorded and "when audited"}
    path = folder / "unlearned.ckpt"
    now = file_digest(path) if path.is_file() else None
    if recorded and now and recorded != now:
        raise UsageError(
            f"Expected {path} to be the network that was audited (SHA-256 {recorded}), but it is "
            f"another one ({now}). Delete the folder and run the job again."
        )
    taken = "when audited" if recorded else "when certified" if now else None
    return {"file": path.name, "sha256": recorded or now, "hash_taken": taken}


def _record(
    audited: _Audited, verdict: Verdict, model: dict[str, Any], command: str
) -> dict[str, Any]:
    """Return the content of audit.json."""
    identity, config = audited.identity, audited.config
    method = config["method"] or {}
    return {
        "format": FORMAT,
        "issued": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": command,
        "subject": {
            **{key: identity[key] for key in ("data", "model", "regularizer", "seed", "method")},
            "forget": list(identity["forget"]),
            "after": [list(classes) for classes in identity.get("after", [])],
            "settings": {
                key: value
                for key, value in method.items()
                if key not in ("name", "_target_", "search", "gate", "tuned")
            },
            "key": identity.get("key"),
            "original": identity.get("original"),
        },
        "verdict": {
            **asdict(verdict),
            "title": TITLES[verdict.headline],
            "checks": [asdict(check) | {"outcome": check.outcome} for check in verdict.checks],
        },
        "figures": {key: _figure(key, audited) for key in audited.unlearned},
        "references": {
            "original": audited.original is not None,
            "retrained": audited.references,
        },
        "images": {
            "counts": audited.images,
            "read_at_most": {
                "retain_train": config["metrics"]["max_images"],
                "retain_val": config["metrics"]["max_images"],
            },
            "splits_hash": audited.splits.hash,
            "data_fingerprint": identity.get("data_fingerprint"),
        },
        "network": model,
        "files": audited.files,
        "environment": audited.environment,
        "limits": list(LIMITS),
    }


def _figure(key: str, audited: _Audited) -> dict[str, Any]:
    try:
        entry = figure(key)
    except KeyError:  # of another version
        entry = Figure(key, key, "", "info", "not in the catalog of this version")
    theirs = [figures[key] for figures in audited.retrained if key in figures]
    pairs = list(combinations(theirs, 2))
    return {
        "heading": entry.heading,
        "unit": entry.unit,
        "target": entry.target,
        "formula": entry.formula,
        "unlearned": audited.unlearned[key],
        "original": (audited.original or {}).get(key),
        "retrained": fmean(theirs) if theirs else None,
        "retrained_sd": stdev(theirs) if len(theirs) > 1 else None,
        "retrained_floor": fmean(abs(a - b) for a, b in pairs) if pairs else None,
    }
