"""The script that readers step through."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_cat_is_forgotten_and_the_probe_still_finds_it(
    cifar10_root: Path, cache_dir: Path, tmp_path: Path
):
    places = {
        "ORTHOUNLEARN_DATA": str(cifar10_root),
        "ORTHOUNLEARN_CACHE": str(cache_dir),
        "ORTHOUNLEARN_RUNS": str(tmp_path / "runs"),
    }
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "forget_a_cat.py"],
        env=os.environ | places, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = re.compile(r"^([^\d\n]+?) {2,}([\d.]+ %.*)$", re.MULTILINE)
    rows = {
        title.strip(): [float(value) for value in values.split() if value != "%"]
        for title, values in row.findall(done.stdout)
    }
    original, unlearned, retrained = rows["accuracy on cats that were trained on"]
    assert original > 25  # a class among ten, so that there was something to forget
    assert unlearned < 5
    assert retrained < 1
    for title in ("what the classifier reads", "probe on what the classifier reads"):
        original, unlearned, retrained = rows[title]
        assert unlearned > (original + retrained) / 2 > retrained  # hidden more than removed
    pictures = Path(re.search(r"pictures: (.+)", done.stdout)[1])
    assert len(re.findall(r'"text":"\w+ (?:→|\\u2192) \w+"', pictures.read_text())) == 12
