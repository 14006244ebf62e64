"""What the README shows works as it stands there."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from orthounlearn.cli import CONF_DIR
from tests.data.test_sources import make_folder

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FAST = ("model.width=4", "recipe.epochs=1", "logger=none")
TINY = ("data.source.image_size=16", "data.crop_padding=0", "data.val_fraction=0.25",
        "recipe.batch_size=4", "recipe.epochs=1", "logger=none", "optimizer.lr=0.001")  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line[1:] for line in lines if line[:1] == ["orthounlearn"]]


def starting(*words: str) -> list[str]:
    return next(line for line in commands() if all(word in line for word in words))


def first_value(argument: str) -> str:
    key, equals, value = argument.partition("=")
    return key + equals + (value if value.startswith("[") else value.split(",")[0])


@pytest.fixture
def _own_modules() -> Iterator[None]:
    """Forget what a test imported from its folder."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in ("my_methods", "my_package"):
        sys.modules.pop(name, None)


def examples() -> list[list[str]]:
    """Return the command lines that the jobs' help texts show."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(CONF_DIR).glob("*.yaml"))]
    lines = re.findall(r"^ +(orthounlearn \w+ .*)$", "\n".join(texts), re.MULTILINE)
    shown = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in shown if "=" in " ".join(line)]


@pytest.mark.parametrize(
    "line", [c for c in [*commands(), *examples()] if "--config-dir" not in c], ids=" ".join
)
def test_commands_compose(line: list[str], call: Callable):
    job, *arguments = (first_value(a) for a in line if a not in {"-m", "--help"})
    result = call(job, *arguments, "--cfg", "job")
    assert result.code == 0, result.err


@pytest.mark.usefixtures("_own_modules")
def test_own_method(call: Callable, tmp_path: Path):
    (tmp_path / "my_methods.py").write_text(blocks("python")[0])
    (tmp_path / "my_conf/method").mkdir(parents=True)
    (tmp_path / "my_conf/method/neg_grad_plus.yaml").write_text(blocks("yaml")[0])
    result = call(*starting("--config-dir"), *FAST, "metrics.reference=none")
    assert result.code == 0, result.err
    made = Path(result.out.split("All figures: ")[1].strip()).parent
    assert made.name.startswith("neg_grad_plus_")


NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes),
        )
"""


@pytest.mark.usefixtures("_own_modules")
def test_own_images_and_own_network(call: Callable, tmp_path: Path):
    make_folder(tmp_path / "FOLDER", size=(16, 16), classes=("cat", "dog", "emu"))
    (tmp_path / "my_package.py").write_text(NET)
    namespace: dict[str, type[nn.Module]] = {}
    exec(NET, namespace)  # noqa: S102 - three lines above
    torch.save(namespace["Net"](3).state_dict(), tmp_path / "net.pt")
    images = starting("unlearn", "data=image_folder", "data.source.image_size=64")
    result = call(*images, "data.source.image_size=16", *TINY, *FAST, "metrics.reference=none")
    assert result.code == 0, result.err
    for line in (starting("checkpoint=net.pt"), starting("evaluate")):
        result = call(*line, *TINY)
        assert result.code == 0, result.err
        made = Path(result.out.split("All figures: ")[1].strip()).parent
        if (made / "unlearned.ckpt").exists():
            (made / "unlearned.ckpt").rename(tmp_path / "forgot.pt")


def test_make_targets_of_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert (
        set(re.findall(r"`?make ([a-z-]+)", "\n".join(re.findall(r"`[^`]+`|^make .*", text, re.M))))
        <= targets
    )


def test_links_of_the_documents_lead_somewhere():
    for document in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (
                target.startswith("https://") or (ROOT / document).parent.joinpath(target).exists()
            )
