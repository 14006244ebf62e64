"""Splits: disjoint, complete, stratified, the same for ever."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orthounlearn.data.splits import (
    SPLIT_NAMES,
    Splits,
    make_splits,
    resolve_forget,
    resolve_sequence,
    said,
    subsample,
)
from orthounlearn.errors import UsageError

LABELS = np.tile(np.arange(5), 20)
NAMES = ["cat", "dog", "emu"]


@given(
    num_classes=st.integers(2, 6),
    per_class=st.integers(10, 40),
    data=st.data(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_splits_are_a_partition(num_classes: int, per_class: int, data: st.DataObject, seed: int):
    labels = np.random.default_rng(seed).permutation(np.arange(num_classes).repeat(per_class))
    forget = data.draw(st.sets(st.integers(0, num_classes - 1), max_size=num_classes - 1))
    splits = make_splits(labels, labels, forget=tuple(forget), seed=seed)
    official = {
        "train": ("forget_train", "forget_val", "retain_train", "retain_val"),
        "test": ("forget_test", "forget_probe", "retain_test"),
    }
    for names in official.values():
        together = np.concatenate([splits[name] for name in names])
        assert sorted(together) == list(range(len(labels)))
    for name in SPLIT_NAMES:
        belongs = np.isin(labels[splits[name]], sorted(forget))
        assert (belongs == name.startswith("forget")).all()
        assert (np.diff(splits[name]) > 0).all()


@given(gone=st.sets(st.integers(0, 4), max_size=3), now=st.integers(0, 4), seed=st.integers(0, 99))
def test_deleted_classes_are_in_no_split(gone: set[int], now: int, seed: int):
    assume(now not in gone)
    labels = np.random.default_rng(seed).permutation(LABELS)
    everything = make_splits(labels, labels, forget=[*gone, now], seed=seed)
    left = everything.without(sorted(gone), train_labels=labels, test_labels=labels)
    alone = make_splits(labels, labels, forget=[now], seed=seed)
    assert left.forget == (now,)
    for name in SPLIT_NAMES:
        expected = alone[name][~np.isin(labels[alone[name]], sorted(gone))]
        assert left[name].tolist() == expected.tolist()


def test_without_deleted_classes_nothing_changes():
    splits = make_splits(LABELS, LABELS, forget=[1, 3])
    assert splits.without((), train_labels=LABELS, test_labels=LABELS).hash == splits.hash


@given(fraction=st.sampled_from([0.1, 0.25, 0.5]), seed=st.integers(0, 9))
def test_the_validation_cut_is_stratified_and_ignores_the_request(fraction: float, seed: int):
    one = make_splits(LABELS, LABELS, forget=[1], val_fraction=fraction, seed=seed)
    other = make_splits(LABELS, LABELS, forget=[2, 4], val_fraction=fraction, seed=seed)
    for splits in (one, other):
        val = np.concatenate([splits.forget_val, splits.retain_val])
        assert np.bincount(LABELS[val]).tolist() == [round(20 * fraction)] * 5
    held_out = [set(s.forget_val) | set(s.retain_val) for s in (one, other)]
    assert held_out[0] == held_out[1]


def test_the_cut_of_today_is_the_cut_of_tomorrow():
    splits = make_splits(LABELS, LABELS, forget=[3], seed=0)
    assert splits.forget_val.tolist() == make_splits(LABELS, LABELS, forget=[3]).forget_val.tolist()
    # Changing how splits are drawn would silently change every published number.
    assert splits.hash.startswith("e1d0e41fa52b7219")


@given(st.integers(0, 3), st.integers(0, 3))
def test_hash_tells_requests_apart(one: int, other: int):
    a, b = (make_splits(LABELS, LABELS, forget=[c]) for c in (one, other))
    assert (a.hash == b.hash) == (one == other)


def test_splits_come_back_from_disk(tmp_path: Path):
    splits = make_splits(LABELS, LABELS, forget=[0, 2], val_fraction=0.2, seed=7)
    splits.save(tmp_path / "splits.npz")
    loaded = Splits.load(tmp_path / "splits.npz")
    assert loaded.hash == splits.hash
    assert loaded.forget == (0, 2)


def test_damaged_and_altered_splits_are_refused(tmp_path: Path):
    path = tmp_path / "splits.npz"
    make_splits(LABELS, LABELS, forget=[0]).save(path)
    whole = dict(np.load(path))
    whole["forget_train"] = whole["forget_train"][1:]
    np.savez(path, **whole)
    with pytest.raises(UsageError, match="hash"):
        Splits.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="cannot read"):
        Splits.load(path)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_impossible_shares_are_refused(share: float):
    with pytest.raises(UsageError, match="val_fraction"):
        make_splits(LABELS, LABELS, val_fraction=share)


def test_a_class_without_training_images_is_refused():
    with pytest.raises(UsageError, match="none is left of"):
        make_splits(np.array([0, 0, 1]), LABELS, val_fraction=0.9)


@given(st.integers(1, 20))
def test_subsample_keeps_the_shares_of_classes(each: int):
    chosen = subsample(np.arange(100), LABELS, limit=5 * each)
    assert np.bincount(LABELS[chosen], minlength=5).tolist() == [each] * 5


@pytest.mark.parametrize(
    ("given", "expected"), [("dog", (1,)), (2, (2,)), ("2", (2,)), (["emu", 0], (0, 2))]
)
def test_classes_by_name_or_number(given: object, expected: tuple[int, ...]):
    assert resolve_forget(given, NAMES) == expected


def test_a_name_that_looks_like_a_number_is_a_name():
    assert resolve_forget("7", ["7", "3"]) == (0,)
    assert resolve_forget(10, ["0", "1", "10", "2"]) == (2,)
    assert resolve_forget(["2", "10"], ["0", "1", "10", "2"]) == (2, 3)


NUMBERED = st.lists(
    st.one_of(st.integers(0, 12).map(str), st.sampled_from(["cat", "02", "x1"])),
    min_size=3,
    max_size=8,
    unique=True,
).map(sorted)
"""Folder names, sorted as text, numbers among them or not."""


@given(NUMBERED, st.data())
def test_text_that_is_a_name_is_that_class(names: list[str], data: st.DataObject):
    name = data.draw(st.sampled_from(names))
    assert resolve_forget(name, names) == (names.index(name),)


def asked(number: int, names: list[str]) -> int | str:
    """Return the class of a bare number, or why it is refused."""
    try:
        (label,) = resolve_forget(number, names)
    except UsageError as error:
        return str(error)
    return label


@given(NUMBERED, st.integers(0, 15))
def test_a_bare_number_never_forgets_a_class_of_another_number(names: list[str], number: int):
    found = asked(number, names)
    position = names[number] if number < len(names) else None
    if str(number) in names:
        if position in (None, str(number)):
            assert found == names.index(str(number))
        else:  # both readings are possible, and the message has the two ways to say it
            assert f"'{number}' or '{position}'" in str(found)
    elif any(name.isdecimal() for name in names) or position is None:
        assert "Valid" in str(found)
    else:
        assert found == number


@given(st.integers(2, 30), st.data())
def test_names_that_are_their_own_positions_can_be_given_either_way(
    count: int, data: st.DataObject
):
    names = [str(index) for index in range(count)]
    number = data.draw(st.integers(0, count - 1))
    assert resolve_forget(number, names) == resolve_forget(str(number), names) == (number,)


@given(NUMBERED, st.data())
def test_what_is_said_is_understood(names: list[str], data: st.DataObject):
    label = data.draw(st.integers(0, len(names) - 1))
    assert resolve_forget(said(label, names), names) == (label,)


def test_positions_are_not_offered_where_names_are_numbers():
    with pytest.raises(UsageError, match=r"got 7. Valid: 0, 1, 10, 2\."):
        resolve_forget(7, ["0", "1", "10", "2"])
    with pytest.raises(UsageError, match=r"got 12. Valid: 0 \(0\), 1 \(1\)"):
        resolve_forget(12, list("0123456789"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "got none"),
        ([], "got none"),
        ("cow", r"got 'cow'. Valid: 0 \(cat\)"),
        (3, "got 3"),
        (-1, "got -1"),
        (["cat", 0], "once"),
        (["cat", "dog", "emu"], "at least one class to retain"),
        (True, "True"),
        (1.5, "1.5"),
    ],
)
def test_bad_requests_say_what_is_valid(bad: object, message: str):
    with pytest.raises(UsageError, match=message):
        resolve_forget(bad, NAMES)


def test_a_sequence_keeps_its_order():
    names = [*NAMES, "fox", "gnu"]
    assert resolve_sequence([["emu", "cat"], 3], "dog", names) == ((0, 2), (3,), (1,))
    assert resolve_sequence([], ["dog", 0], names) == ((0, 1),)


@pytest.mark.parametrize(
    ("after", "forget", "message"),
    [
        ([["cat"]], "cat", r"more than one names 0 \(cat\)"),
        ([["cat", "dog"], [1]], "emu", r"more than one names 1 \(dog\)"),
        ([["cat"], ["dog"]], "emu", "after and forget together name all 3"),
        ([["cat"], ["cow"]], "emu", r"Expected after\[1\] to name a class, but got 'cow'. Valid"),
        ([[]], "emu", r"Expected after\[0\]=CLASS or .* but got none"),
        ([["cat", "cat"]], "emu", r"each class once in after\[0\]"),
        (["cat"], None, "Expected forget=CLASS"),
    ],
)
def test_bad_sequences_say_which_request_is_wrong(after: list, forget: object, message: str):
    with pytest.raises(UsageError, match=message):
        resolve_sequence(after, forget, NAMES)
