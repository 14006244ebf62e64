"""The page of the methods says of each method what its docstring and its YAML say."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from omegaconf import OmegaConf

from orthounlearn.config import CONF_DIR
from orthounlearn.config.build import locate

CONFIGS = sorted(Path(CONF_DIR, "method").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "methods_page.py"
    spec = importlib.util.spec_from_file_location("methods_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(tool: ModuleType) -> str:
    return tool.page()


@pytest.fixture(scope="module")
def section(page: str) -> dict[str, str]:
    parts = re.split(r"^## (\w+)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def words(text: str) -> str:
    """Text without line breaks, list marks and escapes."""
    return " ".join(re.sub(r"\\(?=[*_<\\])|^- ", "", text, flags=re.MULTILINE).split())


def resolved(name: str) -> dict:
    """The YAML over what it inherits, read on its own."""
    node = yaml.safe_load(Path(CONF_DIR, "method", f"{name}.yaml").read_text())
    for parent in node.pop("defaults", []):
        node = over(resolved(parent), node)
    return node


def over(below: dict, above: dict) -> dict:
    both = {k for k in below.keys() & above.keys() if isinstance(above[k], dict)}
    return below | above | {key: over(below[key] or {}, above[key]) for key in both}


def test_every_method_has_a_row_and_a_section(page: str, section: dict[str, str]):
    assert sorted(section) == NAMES
    assert sorted(re.findall(r"^\| \[(\w+)\]\(#\1\) \|", page, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_section_has_formula_source_and_deviations(name: str, section: dict[str, str]):
    docstring = inspect.cleandoc(locate(resolved(name)["_target_"]).__doc__)
    said = words(docstring.partition("Args:\n")[0])
    found = words(section[name])
    assert words(docstring.partition("\n")[0]) in found
    for heading in ("Source", "Deviations"):
        shown = found.partition(f"**{heading}:** ")[2]
        assert shown
        if f"{heading}:" in said:
            # Of a short source the docstring's next section would follow in other letters.
            stated = said.partition(f"{heading}: ")[2].partition(" Deviations:")[0]
            assert shown.startswith(stated[:60])


@pytest.mark.parametrize("name", NAMES)
def test_section_has_the_declared_sets_and_the_defaults(name: str, section: dict[str, str]):
    node = resolved(name)
    kind = locate(node["_target_"])
    for split in kind.uses | kind.prepare_uses:
        assert f"`{split}`" in section[name]
    options = {k: v for k, v in node.items() if k not in ("name", "_target_", "search", "gate")}
    for key, value in options.items():
        row = re.search(rf"^\| `{key}` \| `(.*?)` \| (.*?) \|", section[name], re.MULTILINE)
        assert row, key
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert float(row[1]) == value
        assert bool(row[2].strip()) == (key in (node.get("search") or {}))
    if not options:
        assert "No options." in section[name]


def test_families_follow_from_the_classes(page: str):
    rows = dict(re.findall(r"^\| \[(\w+)\]\(#\w+\) \| ([^|]+) \|", page, re.MULTILINE))
    assert rows["original"] == rows["retrain"] == "reference"
    assert rows["mask_logit"] == rows["soft_prune"] == "edit (no data at request)"
    assert rows["bias_shift"] == "edit (reads data)"
    assert rows["fine_tune"] == "training"


def test_variants_inherit_and_keep_what_they_say_of_themselves(section: dict[str, str]):
    variant = section["soft_prune_literal"]
    assert "| `sites` | `convs` |  |" in variant
    assert "| `pooling` | `max` |  |" in variant  # of soft_prune
    assert "**Source:** Gong" in variant
    assert "The literal reading of the paper" in variant


@pytest.mark.parametrize("name", NAMES)
def test_section_has_the_gate(name: str, section: dict[str, str]):
    gate = resolved(name)["gate"]
    (line,) = [line for line in section[name].splitlines() if line.startswith("**Gate:**")]
    assert [float(n) / 100 for n in re.findall(r"([\d.]+) %", line)[:2]] == pytest.approx(
        [gate["retain"], gate["forget"]]
    )
    assert words(gate.get("why") or "") in words(line)


def test_controls_have_the_values_of_what_they_control(tool: ModuleType, section: dict[str, str]):
    for path in Path(CONF_DIR, "method", "tuned").glob("*/random_mask.yaml"):
        ours = OmegaConf.to_container(tool.read_config(path.with_name("soft_prune.yaml")))
        assert tool.read_config(path) == ours
        row = re.search(rf"^\| {path.parent.name} \|.*$", section["random_mask"], re.MULTILINE)
        assert "values of [soft_prune](#soft_prune)" in row[0]
        assert ours["tuned"]["command"] not in section["random_mask"]


def test_tuned_values_stand_beside_their_command(tool: ModuleType, section: dict[str, str]):
    files = sorted(Path(CONF_DIR, "method", "tuned").glob("*/*.yaml"))
    assert files
    for path in files:
        node = tool.read_config(path)
        row = re.search(rf"^\| {path.parent.name} \|.*$", section[path.stem], re.MULTILINE)
        own = node["tuned"]["method"] == path.stem
        assert (node["tuned"]["command"] in row[0]) == own
        assert (f"{node['tuned']['objective']} in" in row[0]) == own
        for key, value in node.items():
            if isinstance(value, (int, str)):
                assert f"`{key}={value}`" in row[0]


def test_all_methods_had_the_same_budget_of_trials(page: str):
    intro = page.partition("\n## ")[0]
    assert "- digits_cpu: 16 trials for each method." in intro
    assert "- cifar10_cpu: 8 trials for each method." in intro


def test_a_smaller_budget_is_told(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tool, "METHODS", tmp_path)
    for name, trials in (("ssd", 8), ("salun", 8), ("scrub", 1), ("salun_like", 8)):
        whose = name.removesuffix("_like")  # values of another method are not counted
        path = tmp_path / "tuned" / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"tuned: {{method: {whose}, trials: {trials}}}\n")
    assert "- mine: 8 trials for each method; but 1 for scrub, as its command says." in (
        tool._budgets().splitlines()
    )


def test_no_method_leaves_its_source_or_deviations_open(page: str):
    assert "not stated" not in page


def test_check_tells_a_page_that_is_out_of_date(
    tool: ModuleType, page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "methods.md"
    check = ["--check", "--page", str(path)]
    assert tool.main(check) == 1
    path.write_text(page + "\n", encoding="utf-8")
    assert tool.main(check) == 1
    assert "methods_page.py" in capsys.readouterr().err
    path.write_text(page, encoding="utf-8")
    assert tool.main(check) == 0
    assert tool.main([]) == 0
    assert capsys.readouterr().out == page


def test_markup_is_escaped_and_code_is_not(tool: ModuleType):
    escaped = tool._prose("a *b* <br> ∇_θ, b_f and `x*y`")
    assert escaped == r"a \*b* \<br> ∇\_θ, b_f and `x*y`"


def test_sections_of_a_docstring(tool: ModuleType):
    docstring = """y = f(x).

    More of it:

        x := 0

    Source: Someone, "Title. Part: two", arXiv 1
    (lr 1). Deviations by
    default: none.

    Args:
        rate: Share, of
            channels.
    """
    assert tool.sections(docstring) == {
        "Formula": "y = f(x).\n\nMore of it:\n\n    x := 0",
        "Source": 'Someone, "Title. Part: two", arXiv 1\n(lr 1).',
        "Deviations": "none.",
        "Args": "rate: Share, of\n    channels.",
    }
