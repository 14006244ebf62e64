"""The certificate: what it says, what it escapes, what it refuses, and whole or not at all."""

import errno
import hashlib
import json
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

from orthounlearn.data.splits import Splits, make_splits
from orthounlearn.errors import UsageError
from orthounlearn.files import write_json
from orthounlearn.metrics.verdict import TITLES, judge
from orthounlearn.report import certificate_page
from orthounlearn.report.certificate import LIMITS, NO_SHADOWS, write_certificate

WRITTEN = {"audit.json", "certificate.md", "certificate.html"}
NASTY = '<script>alert("x")</script> & </td> `code` | **bold** [a](b) _c_ \\ {{ 7*7 }} $'

AUC, PROBE = "mia/pop_margin/auc", "probe/k50"
RETRAINED = {"acc/forget_train": 0.0, "acc/forget_test": 0.0, "acc/retain_test": 0.89,
             AUC: 0.5, PROBE: 0.56, "mia/pop_lr/auc": 0.51}  # fmt: skip
ORIGINAL = {"acc/forget_train": 0.87, "acc/forget_test": 0.83, "acc/retain_test": 0.88,
            AUC: 0.60, PROBE: 0.80, "mia/pop_lr/auc": 0.55}  # fmt: skip
MASKED = RETRAINED | {PROBE: 0.80, "probe/k50_index": 1.0,
                      "probe/k50_index_low": 0.9, "probe/k50_index_high": 1.12,
                      "time/unlearn_s": 3e-5, "acc/retain_test_per_class/dog": 0.9}  # fmt: skip


@cache
def cifar10_splits() -> Splits:
    labels = np.repeat(np.arange(10), 5000), np.repeat(np.arange(10), 1000)
    return make_splits(*labels, forget=[3])


def write_run(
    folder: Path, *, unlearned: dict[str, float | None] = MASKED,
    retrained: dict[str, float] | None = RETRAINED, original: dict[str, float] | None = ORIGINAL,
    names: dict[str, Any] | None = None, config: dict[str, Any] | None = None,
    command: str = "orthounlearn unlearn forget=cat",
) -> Path:  # fmt: skip
    """Write what a finished run leaves behind."""
    folder.mkdir(parents=True)
    cifar10_splits().save(folder / "splits.npz")
    settings = {
        "method": {"name": "mask_logit", "_target_": "a.B", "rate": 0.3, "tuned": {"command": "t"}},
        "metrics": {"max_images": 5000, "reference": "train"},
        "checkpoint": None,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | (config or {})))
    environment = {"versions": {"torch": "9.9"}, "python": "3.11", "platform": "Linux",
                   "device": "cpu", "device_name": "", "threads": 1, "git": "abc",
                   "command": command}  # fmt: skip
    write_json(folder / "env.json", environment)
    identity = {"data": "cifar10", "model": "resnet18_thin", "regularizer": "so", "seed": 7,
                "method": "mask_logit", "forget": ["cat"], "key": "k" * 64, "group": None,
                "environment": environment}  # fmt: skip
    write_json(folder / "run.json", identity | (names or {}))
    (folder / "unlearned.ckpt").write_bytes(b"weights")
    phases = {"unlearned": unlearned, "retrained": retrained, "original": original}
    metrics = {f"{p}/{k}": v for p, values in phases.items() for k, v in (values or {}).items()}
    write_json(folder / "metrics.json", metrics)
    return folder


def certify(folder: Path) -> dict[str, Any]:
    write_certificate(folder, command="orthounlearn certify RUN")
    audit: dict[str, Any] = json.loads((folder / "audit.json").read_text())
    return audit


class Page(HTMLParser):
    """Tags in balance, attributes, and texts by tag."""

    VOID = ("meta",)

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.declaration = ""
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_decl(self, decl: str) -> None:
        self.declaration = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.stack[-1], data))

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    def visible(self) -> str:
        return " ".join(text for where, text in self.texts if where not in ("style", "title"))


def html(folder: Path) -> Page:
    return Page((folder / "certificate.html").read_text())


def markdown(folder: Path) -> Page:
    text = (folder / "certificate.md").read_text()
    return Page(MarkdownIt("commonmark").enable("table").render(text))


# What it says.


def test_the_verdict_is_that_of_the_figures_and_is_written_with_its_reasons(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    verdict = write_certificate(folder, command="orthounlearn certify RUN")
    images = {"forget_train": 4500, "forget_test": 500, "retain_test": 9000}
    assert verdict == judge(MASKED, ORIGINAL, [RETRAINED], images=images)
    assert verdict.headline == "head_only"
    audit = json.loads((folder / "audit.json").read_text())
    assert audit["verdict"]["flags"] == ["head_only", "under_unlearned"]
    assert audit["verdict"]["title"] == TITLES["head_only"]
    for page in (html(folder).visible(), markdown(folder).visible()):
        assert TITLES["head_only"] in page
        for sentences in verdict.reasons.values():
            assert all(sentence in page for sentence in sentences)
        assert all(caution in page for caution in verdict.cautions)
        assert all(limit in page for limit in LIMITS)


def test_audit_json_holds_everything_that_the_verdict_rests_on(tmp_path: Path):
    folder = write_run(tmp_path / "run", names={"original": "o" * 64, "data_fingerprint": "d" * 64})
    audit = certify(folder)
    assert audit.keys() == {
        "format", "issued", "command", "subject", "verdict", "figures", "references", "images",
        "network", "files", "environment", "limits",
    }  # fmt: skip
    assert audit["command"] == "orthounlearn certify RUN"
    assert audit["environment"]["command"] == "orthounlearn unlearn forget=cat"
    assert audit["environment"]["versions"] == {"torch": "9.9"}
    assert audit["subject"] == {
        "data": "cifar10", "model": "resnet18_thin", "regularizer": "so", "seed": 7,
        "method": "mask_logit", "forget": ["cat"], "after": [], "settings": {"rate": 0.3},
        "key": "k" * 64, "original": "o" * 64,
    }  # fmt: skip
    assert audit["images"]["counts"]["forget_test"] == 500
    assert audit["images"]["splits_hash"] == Splits.load(folder / "splits.npz").hash
    assert audit["images"]["data_fingerprint"] == "d" * 64
    weights = hashlib.sha256(b"weights").hexdigest()
    assert audit["network"] == {
        "file": "unlearned.ckpt", "sha256": weights, "hash_taken": "when certified"
    }  # fmt: skip
    for name in ("config.yaml", "env.json", "metrics.json", "run.json", "splits.npz"):
        assert audit["files"][name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert audit["references"] == {
        "original": True,
        "retrained": [{"seed": 7, "key": None, "itself": False}],
    }
    assert audit["figures"].keys() == MASKED.keys()
    assert audit["figures"][PROBE]["unit"] == "%"
    probe = audit["figures"][PROBE]
    assert [probe[phase] for phase in ("unlearned", "retrained", "original")] == [0.8, 0.56, 0.8]
    (probe,) = (check for check in audit["verdict"]["checks"] if check["key"] == PROBE)
    assert probe["outcome"] == "higher"


def test_both_pages_have_the_same_parts_and_the_same_table(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    certify(folder)
    pages = html(folder), markdown(folder)
    for page in pages:
        assert page.of("h1") == ["Audit of unlearning: cat"]
        assert [t for t in page.of("h2") if t != "Verdict"] == [
            "Figures", "What this does not prove", "What was audited"
        ]  # fmt: skip
    table = (folder / "certificate.md").read_text().split("## Figures")[1].split("##")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0] == ["Figure", "This network", "Retrained", "Original", "Judged"]
    assert cells[2:] == [
        ["Forget train % →R", "0.0", "0.0", "87.0", "alike (± 2.1 points)"],
        ["Forget test % →R", "0.0", "0.0", "83.0", "alike (± 2.6 points)"],
        ["Retain test % →R", "89.0", "89.0", "88.0", "alike (± 2.9 points)"],
        ["MIA AUC margin →R", "0.500", "0.500", "0.600", "alike (± 0.058)"],
        ["50-shot probe % →R", "80.0", "56.0", "80.0", "higher (± 15.6 points)"],
        ["Probe index →0", "1.000 (0.900 to 1.120)", "–", "–", ""],
        ["MIA AUC learned →R", "0.510", "0.510", "0.550", ""],
        ["Request ms ↓", "0.03", "–", "–", ""],
    ]
    for cell in (cell for line in cells[2:] for cell in line if cell):
        assert all(cell in page.visible() for page in pages)


def test_several_retrained_networks_come_from_their_own_file(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    accuracies = (0.87, 0.91)
    write_json(
        folder / "retrained.json",
        [
            {"seed": seed, "key": f"key{seed}", "figures": RETRAINED | {"acc/retain_test": value}}
            for seed, value in enumerate(accuracies)
        ],
    )
    audit = certify(folder)
    assert audit["references"]["retrained"] == [
        {"seed": seed, "key": f"key{seed}", "itself": False} for seed in (0, 1)
    ]
    spread = np.std(accuracies, ddof=1)
    assert audit["figures"]["acc/retain_test"]["retrained"] == pytest.approx(0.89)
    assert audit["figures"]["acc/retain_test"]["retrained_sd"] == pytest.approx(spread)
    assert audit["figures"]["acc/retain_test"]["retrained_floor"] == pytest.approx(0.04)
    (check,) = (c for c in audit["verdict"]["checks"] if c["key"] == "acc/retain_test")
    assert check["tolerance"] == pytest.approx(3 * spread)
    assert "89.0 ± 2.8" in html(folder).visible()
    assert "retrained.json" in audit["files"]


def test_the_last_of_several_requests_is_audited_for_all_of_them(tmp_path: Path):
    folder = write_run(tmp_path / "run", names={"after": [["dog", "emu"], ["fox"]]})
    assert certify(folder)["subject"]["after"] == [["dog", "emu"], ["fox"]]
    for page in (html(folder), markdown(folder)):
        assert page.of("h1") == ["Audit of unlearning: dog, emu, fox, cat"]
        assert "Last of 3 requests: cat." in page.visible()


# What is missing is said.


def test_without_references_the_page_says_what_could_not_be_judged(tmp_path: Path):
    folder = write_run(tmp_path / "run", retrained=None, original=None)
    audit = certify(folder)
    assert audit["verdict"]["headline"] == "incomplete"
    assert audit["references"] == {"original": False, "retrained": []}
    for page in (html(folder).visible(), markdown(folder).visible()):
        assert TITLES["incomplete"] in page
        for flag in ("utility_fail", "head_only", "under_unlearned", "over_unlearned"):
            assert f"{TITLES[flag]} ({flag})" in page
        assert "Not excluded" in page
        assert "no retrained network to compare the probe with" in page
        assert "neither a retrained nor an original network" in page


def test_a_reason_that_leaves_several_flags_open_is_said_once(tmp_path: Path):
    folder = write_run(tmp_path / "run", retrained=None)
    certify(folder)
    assert html(folder).visible().count("no retrained network to compare the probe with") == 1


def test_undefined_and_infinite_figures_are_left_out(tmp_path: Path):
    values = {**MASKED, "probe/k10": None, "kl/forget": float("inf")}
    audit = certify(write_run(tmp_path / "run", unlearned=values))
    assert audit["figures"].keys() == MASKED.keys()


def test_a_figure_of_another_version_is_kept_without_its_meaning(tmp_path: Path):
    audit = certify(write_run(tmp_path / "run", unlearned=MASKED | {"new/figure": 0.25}))
    assert audit["figures"]["new/figure"]["unlearned"] == 0.25
    assert "not in the catalog" in audit["figures"]["new/figure"]["formula"]


def test_what_the_engine_did_not_record_is_not_invented(tmp_path: Path):
    folder = write_run(tmp_path / "run", names={"key": None})
    (folder / "unlearned.ckpt").unlink()
    audit = certify(folder)
    assert audit["network"] == {"file": "unlearned.ckpt", "sha256": None, "hash_taken": None}
    assert audit["images"]["data_fingerprint"] is None
    assert html(folder).visible().count("not recorded") == 4  # network, data, original, run


def test_somebody_elses_network_is_named_by_the_hash_of_the_audit_alone(tmp_path: Path):
    theirs = tmp_path / "theirs.pt"
    theirs.write_bytes(b"changed since")
    config = {"method": None, "checkpoint": str(theirs)}
    audit = certify(write_run(tmp_path / "a", config=config, original=None))
    assert audit["network"] == {"file": "theirs.pt", "sha256": None, "hash_taken": None}
    recorded = {"model_sha256": "a" * 64, "method": "evaluate"}
    audit = certify(write_run(tmp_path / "b", config=config, names=recorded, original=None))
    assert audit["network"] == {
        "file": "theirs.pt", "sha256": "a" * 64, "hash_taken": "when audited"
    }  # fmt: skip


# Escaping, and one page without anything from outside.


def nasty_run(folder: Path) -> Path:
    names = {
        "forget": [NASTY], "model": NASTY, "data": "line\nbreak\u202eturned", "method": NASTY,
        "regularizer": NASTY, "origin": NASTY, "data_fingerprint": NASTY,
    }  # fmt: skip
    config = {"method": {"name": "x", NASTY: NASTY}}
    return write_run(folder, names=names, config=config, command=NASTY)


def test_text_of_users_stays_text(tmp_path: Path):
    folder = nasty_run(tmp_path / "run")
    write_certificate(folder, command=NASTY)
    for page in (html(folder), markdown(folder)):
        assert page.of("h1") == [f"Audit of unlearning: {NASTY}"]
        assert page.visible().count(NASTY) >= 8
        assert not {"script", "a", "code"} & {tag for tag, _ in page.texts}
        assert "bold" not in "".join(page.of("strong"))
        assert "line\ufffdbreak\ufffdturned" in page.visible()
    assert json.loads((folder / "audit.json").read_text())["subject"]["forget"] == [NASTY]


def test_a_nasty_name_changes_no_structure(tmp_path: Path):
    plain, nasty = write_run(tmp_path / "plain"), nasty_run(tmp_path / "nasty")
    tags = []
    for folder in (plain, nasty):
        certify(folder)
        page = html(folder)
        tags.append([(tag, name) for tag, name, _ in page.attributes])
    assert tags[0] == tags[1]


def test_the_page_brings_everything_with_it(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    certify(folder)
    text, page = (folder / "certificate.html").read_text(), html(folder)
    assert text.startswith("<!DOCTYPE html>")
    assert page.declaration == "DOCTYPE html"
    assert "http:" not in text
    assert "https:" not in text
    names = {name for _, name, _ in page.attributes}
    assert names == {"lang", "charset", "name", "content", "class", "scope"}
    tags = {tag for tag, _, _ in page.attributes} | {tag for tag, _ in page.texts}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "a"}
    (style,) = page.of("style")
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@page { size: A4;" in style
    assert style.count("{") == style.count("}")


def test_a_long_request_stays_on_one_page(tmp_path: Path):
    names = {"forget": [f"a class with a long name {i}" for i in range(1000)]}
    folder = write_run(tmp_path / "run", names=names, command="x=1 " * 5000)
    audit = certify(folder)
    assert len(audit["subject"]["forget"]) == 1000
    assert len(audit["environment"]["command"]) == 20000
    # At the printed sizes a page takes about 60 lines of 130 characters.
    assert len(html(folder).visible()) < 5500


# Refusals, and whole or not at all.


@pytest.mark.parametrize(
    "name", ["metrics.json", "run.json", "env.json", "config.yaml", "splits.npz"]
)
def test_an_unfinished_run_is_refused(tmp_path: Path, name: str):
    folder = write_run(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(UsageError, match=f"^Expected .* finished run, but it has no {name}. Run "):
        certify(folder)
    assert not WRITTEN & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.json", "{"),
        ("metrics.json", '{"unlearned/acc/forget_test": "many"}'),
        ("run.json", "[]"),
        ("run.json", "{}"),
        ("env.json", "{}"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "5"),
        ("splits.npz", "not a zip"),
        ("retrained.json", '[{"seed": 0}]'),
        ("retrained.json", "5"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, text: str):
    folder = write_run(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(UsageError, match=r"damaged|cannot read"):
        certify(folder)
    assert not WRITTEN & {path.name for path in folder.iterdir()}


def test_another_network_than_the_audited_one_is_refused(tmp_path: Path):
    right, wrong = hashlib.sha256(b"weights").hexdigest(), "0" * 64
    audit = certify(write_run(tmp_path / "right", names={"model_sha256": right}))
    assert audit["network"]["hash_taken"] == "when audited"
    folder = write_run(tmp_path / "wrong", names={"model_sha256": wrong})
    message = rf"^Expected .*unlearned.ckpt to be .*SHA-256 {wrong}.*another one \({right}\)"
    with pytest.raises(UsageError, match=message):
        certify(folder)
    assert not WRITTEN & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("broken", sorted(WRITTEN))
def test_all_three_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    folder = write_run(tmp_path / "run")
    certify(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    suffix, write = Path(broken).suffix, Path.write_text

    def fail(path: Path, text: str, **options: Any) -> int:
        if path.suffix == suffix:
            write(path, text[:10], **options)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(UsageError, match="no space left"):
        write_certificate(folder, command="another")
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_error_in_the_page_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_run(tmp_path / "run")
    monkeypatch.setattr(certificate_page, "_findings", lambda _: {})
    with pytest.raises(Exception, match="undefined"):
        certify(folder)
    assert not WRITTEN & {path.name for path in folder.iterdir()}


def test_a_second_certificate_replaces_the_first(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    certify(folder)
    write_certificate(folder, command="again")
    assert json.loads((folder / "audit.json").read_text())["command"] == "again"
    assert "again" in html(folder).visible()


def test_no_network_is_opened():
    code = "import sys, orthounlearn.report.certificate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("asked", "made", "missed"), [(0, False, False), (8, True, False), (8, False, True)]
)
def test_shadow_attacks_that_were_asked_for_and_not_made_are_noted(
    tmp_path: Path, asked: int, made: bool, missed: bool
):
    config = {"metrics": {"max_images": 5000, "reference": "train", "shadows": asked}}
    figures = MASKED | ({"shadows/count": 8.0} if made else {})
    folder = write_run(tmp_path / "run", unlearned=figures, config=config)
    verdict = certify(folder)["verdict"]
    assert (NO_SHADOWS in verdict["cautions"]) == missed
    assert verdict["headline"] == "head_only"  # no flag rests on them
    for page in ("certificate.md", "certificate.html"):
        assert ("that were asked for are not given" in (folder / page).read_text()) == missed
