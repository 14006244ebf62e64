"""Shadow attacks on models whose leak is known in closed form, and who may attack whom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from orthounlearn.errors import UsageError
from orthounlearn.metrics import lira, rmia, shadow
from orthounlearn.metrics.roc import auc
from orthounlearn.metrics.scores import confidence, margin

SHIFT = 1.5
KNOWN = norm.cdf(SHIFT / np.sqrt(2))  # 0.856: P(a member's margin > another's), difficulty known


def world(count: int, shadows: int, *, leak: float = SHIFT, seed: int = 0):
    """φ = d_i + leak·1[in] + N(0, 1), d_i ~ N(0, 9): margins (K, N) and membership (K, N)."""
    rng = np.random.default_rng(seed)
    member = shadow.balanced_membership(count, shadows, seed)
    noise = rng.normal(size=member.shape)
    return rng.normal(0, 3, count) + leak * member + noise, member


def attacked(leak: float = SHIFT, *, count: int = 2000, shadows: int = 64, seed: int = 0):
    """One target, its membership, and shadows that are independent of both."""
    phi, member = world(count, shadows + 2, leak=leak, seed=seed)
    return phi[0], member[0], phi[2:], member[2:]


def area(scores: np.ndarray, member: np.ndarray) -> float:
    return auc(scores[member], scores[~member])


def log_p(phi: np.ndarray) -> np.ndarray:
    """log p of a margin: φ is the log-odds of p."""
    return -np.logaddexp(0, -phi)


def all_attacks(target: np.ndarray, phi: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Every score of the target; RMIA against the audited images themselves."""
    inside, outside = lira.fit_both(phi, member)
    p, p_target = log_p(phi), log_p(target)
    references = {
        "rmia online": rmia.online_reference(p),
        "rmia offline": rmia.offline_reference(np.where(member, np.nan, p), a=0.5),
    }
    return {
        "online": lira.online(target, inside, outside),
        "offline": lira.offline(target, outside),
        "pooled": lira.pooled(target, inside, outside),
        **{key: rmia.score(p_target, r, p_target, r) for key, r in references.items()},
    }


# ---- the design ----------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(2, 60), st.integers(1, 8), st.integers(0, 2**32))
def test_each_example_is_in_half_of_the_shadows_and_each_shadow_has_half(n: int, pairs: int, seed):
    member = shadow.balanced_membership(n, 2 * pairs, seed)
    assert member.shape == (2 * pairs, n)
    assert (member.sum(0) == pairs).all()
    assert (np.abs(member.sum(1) - n / 2) <= 0.5).all()
    larger = shadow.balanced_membership(n, 2 * pairs + 2, seed)
    np.testing.assert_array_equal(larger[: 2 * pairs], member)


def test_halves_are_drawn_at_random():
    member = shadow.balanced_membership(4000, 6, seed=1)
    # Two independent halves share a quarter of the examples; sd of the share is 0.004.
    for one in (0, 1):
        for other in (2, 3, 4, 5):
            assert np.mean(member[one] & member[other]) == pytest.approx(0.25, abs=0.02)
    assert not np.array_equal(member, shadow.balanced_membership(4000, 6, seed=2))


@pytest.mark.parametrize("shadows", [-2, 0, 1, 7])
def test_an_odd_number_of_shadows_is_refused(shadows: int):
    with pytest.raises(UsageError, match=f"even number of shadows, 2 or more, but got {shadows}"):
        shadow.balanced_membership(10, shadows, 0)
    with pytest.raises(UsageError, match="2 or more examples"):
        shadow.balanced_membership(1, 4, 0)


# ---- LiRA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["online", "offline", "pooled"])
def test_lira_reaches_the_known_area(name: str):
    target, truth, phi, member = attacked()
    assert area(all_attacks(target, phi, member)[name], truth) == pytest.approx(KNOWN, abs=0.02)


def test_one_threshold_for_all_images_is_much_weaker():
    target, truth, _, _ = attacked(count=8000, shadows=2)
    # Difficulty is unknown: Φ(μ / √(2·(9 + 1)))
    assert area(target, truth) == pytest.approx(norm.cdf(SHIFT / np.sqrt(20)), abs=0.02)


def test_the_density_instead_of_the_tail_is_the_mistake_that_is_avoided():
    """A two-sided score calls surprisingly unsure models members too."""
    target, truth, phi, member = attacked()
    _, outside = lira.fit_both(phi, member)
    own = np.sqrt(outside.squares_N / (outside.count_N - 1))
    two_sided = -norm.logpdf(target, outside.mean_N, own)
    assert area(two_sided, truth) == pytest.approx(0.76, abs=0.03)


def test_a_deviation_of_all_margins_is_the_mistake_that_is_avoided():
    """The spread between images is no noise; pooling it would make every ratio near 0."""
    _, _, phi, member = attacked(shadows=16)
    inside, outside = lira.fit_both(phi, member)
    for side in (inside, outside):
        assert lira._pooled_deviation(side) == pytest.approx(1, abs=0.02)
    assert phi.std() > 3


@pytest.mark.parametrize("name", ["online", "offline", "pooled", "rmia online", "rmia offline"])
def test_no_leak_is_one_half(name: str):
    target, truth, phi, member = attacked(leak=0, count=8000)  # 3 standard errors are 0.019
    assert area(all_attacks(target, phi, member)[name], truth) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shadows", [8, 64])
def test_flipped_labels_mirror_the_area(shadows: int):
    target, truth, phi, member = attacked(shadows=shadows)
    right, swapped = all_attacks(target, phi, member), all_attacks(target, phi, ~member)
    for scores in right.values():
        assert area(scores, ~truth) == pytest.approx(1 - area(scores, truth))
    for name in ("online", "pooled"):
        np.testing.assert_allclose(swapped[name], -right[name], atol=1e-9)
        assert area(swapped[name], truth) == pytest.approx(1 - area(right[name], truth))


def reference(target: np.ndarray, phi: np.ndarray, member: np.ndarray, *, own: bool) -> np.ndarray:
    """The online ratio by a loop over images and scipy."""
    sides = [(member, []), (~member, [])]
    for side, values in sides:
        values += [phi[side[:, i], i] for i in range(len(target))]
    pooled = [
        np.sqrt(sum(((v - v.mean()) ** 2).sum() for v in values) / sum(len(v) - 1 for v in values))
        for _, values in sides
    ]
    out = []
    for i, x in enumerate(target):
        (_, a), (_, b) = sides
        deviation = [a[i].std(ddof=1), b[i].std(ddof=1)] if own else pooled
        out.append(
            norm.logpdf(x, a[i].mean(), deviation[0]) - norm.logpdf(x, b[i].mean(), deviation[1])
        )
    return np.array(out)


@pytest.mark.parametrize(("shadows", "own"), [(8, False), (62, False), (64, True), (70, True)])
def test_online_is_the_ratio_of_two_densities(shadows: int, own: bool):
    """An image's own deviation is used from 32 IN and 32 OUT shadows on."""
    target, _, phi, member = attacked(count=40, shadows=shadows)
    found = lira.online(target, *lira.fit_both(phi, member))
    np.testing.assert_allclose(found, reference(target, phi, member, own=own), atol=1e-9)


@pytest.mark.parametrize("inside", [8, 40])
def test_many_shadows_of_one_kind_are_not_enough(inside: int):
    rng = np.random.default_rng(0)
    target, phi = rng.normal(size=30), rng.normal(size=(48, 30))
    member = np.repeat(np.arange(48) < inside, 30).reshape(48, 30)
    found = lira.online(target, *lira.fit_both(phi, member))
    np.testing.assert_allclose(found, reference(target, phi, member, own=False), atol=1e-9)


def test_pooled_is_online_with_one_deviation():
    target, _, phi, member = attacked(count=50, shadows=10)
    inside, outside = lira.fit_both(phi, member)
    squares = inside.squares_N.sum() + outside.squares_N.sum()
    deviation = np.sqrt(squares / (50 * (10 - 2)))
    expected = norm.logpdf(target, inside.mean_N, deviation) - norm.logpdf(
        target, outside.mean_N, deviation
    )
    np.testing.assert_allclose(lira.pooled(target, inside, outside), expected, atol=1e-9)


def test_offline_stays_finite_far_in_the_tail():
    phi = np.random.default_rng(0).normal(size=(40, 3))
    outside = lira.fit(phi)
    found = lira.offline(np.array([-1e4, 0.0, 1e4]), outside)
    assert np.isfinite(found).all()
    assert found[0] < -1e6  # log of a probability that no float holds
    deviation = phi[:, 1].std(ddof=1)
    assert found[1] == pytest.approx(norm.logcdf(-phi[:, 1].mean() / deviation))
    assert found[2] == 0


@pytest.mark.parametrize("leak", [0.75, 1.5, 3])
def test_few_shadows_give_a_mean_but_no_variance(leak: float):
    """K = 4: one deviation for all beats two numbers per image."""
    areas = []
    for seed in range(4):
        target, truth, phi, member = attacked(leak, shadows=4, seed=seed)
        sides = lira.fit_both(phi, member)
        inside, outside = (
            norm.logpdf(target, side.mean_N, np.sqrt(side.squares_N / (side.count_N - 1)))
            for side in sides
        )
        areas.append([area(lira.pooled(target, *sides), truth), area(inside - outside, truth)])
    pooled, own = np.mean(areas, axis=0)
    assert pooled > own + 0.03
    assert 0.5 < pooled < norm.cdf(leak / np.sqrt(2))


def test_more_shadows_attack_better():
    areas = []
    for shadows in (4, 8, 16, 64):
        target, truth, phi, member = attacked(count=4000, shadows=shadows)
        areas.append(area(lira.pooled(target, *lira.fit_both(phi, member)), truth))
    assert areas == sorted(areas)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([6, 66]))
def test_order_of_images_and_of_shadows_plays_no_part(seed: int, shadows: int):
    target, _, phi, member = attacked(count=12, shadows=shadows)
    rng = np.random.default_rng(seed)
    images, rows = rng.permutation(12), rng.permutation(shadows)
    moved = all_attacks(target[images], phi[rows][:, images], member[rows][:, images])
    for name, scores in all_attacks(target, phi, member).items():
        np.testing.assert_allclose(moved[name], scores[images], atol=1e-9, err_msg=name)


@settings(max_examples=20)
@given(st.floats(-50, 50), st.integers(0, 1000))
def test_a_constant_on_all_logits_plays_no_part(constant: float, seed: int):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (9, 10, 4))
    member = shadow.balanced_membership(10, 8, seed)
    labels = np.full(10, 2)

    def attacks(z: np.ndarray) -> list[np.ndarray]:
        phi = np.stack([margin(one, labels) for one in z])
        p = np.stack([confidence(one, labels) for one in z])
        reference = rmia.online_reference(p[1:])
        fitted = lira.fit_both(phi[1:], member)
        # Half-way between two ratios, so that rounding moves no image over the threshold.
        ratios = np.sort(p[0] - reference)
        between = (ratios[1:] + ratios[:-1]) / 2
        return [
            lira.online(phi[0], *fitted),
            lira.pooled(phi[0], *fitted),
            lira.offline(phi[0], fitted[1]),
            rmia.score(p[0], reference, between, np.zeros(9)),
        ]

    for one, other in zip(attacks(logits), attacks(logits + constant), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_difficulty_and_scale_play_no_part_in_lira(seed: int, scale: float):
    target, _, phi, member = attacked(count=10, shadows=8)
    difficulty = np.random.default_rng(seed).normal(0, 100, 10)
    fitted, moved = (lira.fit_both(margins, member) for margins in (phi, phi * scale + difficulty))
    there = target * scale + difficulty
    np.testing.assert_allclose(lira.online(there, *moved), lira.online(target, *fitted), atol=1e-6)
    np.testing.assert_allclose(lira.pooled(there, *moved), lira.pooled(target, *fitted), atol=1e-6)


def test_missing_margins_are_left_out_and_undefined_scores_are_nan():
    target, _, phi, member = attacked(count=6, shadows=10)
    more = np.vstack([phi, np.full((2, 6), np.nan)])
    more[10] = [np.nan, np.inf, -np.inf] * 2  # of networks that diverged
    both = np.vstack([member, member[:2]])
    for one, other in zip(lira.fit_both(phi, member), lira.fit_both(more, both), strict=True):
        np.testing.assert_array_equal(one.mean_N, other.mean_N)
        np.testing.assert_array_equal(one.squares_N, other.squares_N)
        np.testing.assert_array_equal(one.count_N, other.count_N)

    phi[member[:, 0], 0] = np.nan  # nobody IN is left for image 0
    target[1:3] = [np.nan, -np.inf]
    inside, outside = lira.fit_both(phi, member)
    for scores in (lira.online(target, inside, outside), lira.pooled(target, inside, outside)):
        assert np.isnan(scores).tolist() == [True, True, True, False, False, False]
    assert np.isnan(lira.offline(target, outside)).tolist() == [False, True, True] + [False] * 3


def test_one_shadow_of_a_kind_has_no_deviation():
    phi, member = world(9, 2)
    inside, outside = lira.fit_both(phi, member)
    for scores in (lira.online(phi[0], inside, outside), lira.pooled(phi[0], inside, outside)):
        assert np.isnan(scores).all()
    assert np.isnan(lira.offline(phi[0], outside)).all()


def test_networks_that_all_say_the_same_leak_nothing():
    """A class whose output is replaced by a constant: no deviation, and no division by it."""
    _, truth, phi, member = attacked(count=100, shadows=8)
    for name, scores in all_attacks(phi[0] * 0 - 9, phi * 0 - 9, member).items():
        assert area(scores, truth) == 0.5, name


# ---- RMIA ----------------------------------------------------------------------------------------


def population(count: int, shadows: int, *, seed: int = 1) -> np.ndarray:
    """Margins (1 + K, Z) of images that no model was trained on, the target's first."""
    rng = np.random.default_rng([seed, 7])
    return rng.normal(0, 3, count) + rng.normal(size=(1 + shadows, count))


def test_a_target_like_its_references_leaks_nothing():
    _, truth, phi, _ = attacked(count=300, shadows=8)
    reference = rmia.online_reference(log_p(phi))
    scores = rmia.score(reference, reference, reference[:50], reference[:50])
    assert area(scores, truth) == 0.5
    assert (scores == 0).all()  # > is strict


@pytest.mark.parametrize("kind", ["online", "offline"])
def test_a_shift_of_the_log_odds_raises_rmia(kind: str):
    areas = []
    for leak in (0, 0.75, 1.5, 3):
        target, truth, phi, member = attacked(leak, count=8000, shadows=16)
        z = population(500, 16)
        p = log_p(phi)
        references = (
            [rmia.online_reference(side) for side in (p, log_p(z[1:]))]
            if kind == "online"
            else [
                rmia.offline_reference(side, a=0.5)
                for side in (np.where(member, np.nan, p), log_p(z[1:]))
            ]
        )
        scores = rmia.score(log_p(target), references[0], log_p(z[0]), references[1])
        areas.append(area(scores, truth))
    assert areas == sorted(areas)
    assert areas[0] == pytest.approx(0.5, abs=0.02)
    assert areas[2] > norm.cdf(SHIFT / np.sqrt(20)) + 0.06  # more than one threshold for all


few = st.lists(st.integers(-4, 4), min_size=1, max_size=12).map(lambda v: np.array(v, float))


@given(few, few, st.sampled_from([0.5, 1.0, 2.0]))
def test_rmia_is_a_double_loop(log_n: np.ndarray, log_z: np.ndarray, gamma: float):
    """On a grid of log γ, so that ratios tie often and exactly; > is strict."""
    log_n, log_z = log_n * np.log(2), log_z * np.log(2)
    reference_n, reference_z = np.zeros(len(log_n)), np.zeros(len(log_z))
    slow = [np.mean([x > z + np.log(gamma) for z in log_z]) for x in log_n]
    fast = rmia.score(log_n, reference_n, log_z, reference_z, gamma=gamma)
    assert fast.tolist() == slow


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_rmia_is_the_ratio_of_probabilities(seed: int, gamma: float):
    """Against the formula as printed, in probabilities."""
    rng = np.random.default_rng(seed)
    target, shadows = rng.uniform(0.01, 1, 20), rng.uniform(0.01, 1, (5, 20))
    ratio = target / shadows.mean(0)
    expected = np.mean(ratio[:12, None] / ratio[None, 12:] > gamma, axis=1)
    reference = rmia.online_reference(np.log(shadows))
    found = rmia.score(
        np.log(target[:12]), reference[:12], np.log(target[12:]), reference[12:], gamma=gamma
    )
    np.testing.assert_allclose(found, expected)


def test_references_are_those_of_the_paper():
    p = np.random.default_rng(0).uniform(0.01, 1, (6, 9))
    member = shadow.balanced_membership(9, 6, 0)
    out = np.where(member, np.nan, p)
    np.testing.assert_allclose(np.exp(rmia.online_reference(np.log(p))), p.mean(0))
    for a in (0, 0.3, 1):
        expected = 0.5 * ((1 + a) * np.nanmean(out, axis=0) + (1 - a))
        np.testing.assert_allclose(np.exp(rmia.offline_reference(np.log(out), a=a)), expected)


def test_probabilities_that_no_float_holds_are_compared():
    """p = 1e-300 and, beyond double precision, 1e-600: the scores are those of p = 1e-1."""
    target, truth, phi, member = attacked(count=300, shadows=8)
    phi, target, z = -np.abs(phi), -np.abs(target), -np.abs(population(100, 8))
    areas = []
    for shift in (0, -690, -1380):
        online = [rmia.online_reference(side + shift) for side in (phi, z[1:])]
        scores = rmia.score(target + shift, online[0], z[0] + shift, online[1])
        areas.append(area(scores, truth))
        offline = rmia.offline_reference(np.where(member, np.nan, phi + shift), a=1)
        plain = rmia.online_reference(np.where(member, np.nan, phi))  # (1 + a) / 2 is 1
        np.testing.assert_allclose(offline, plain + shift, atol=1e-9)
    assert areas[0] != 0.5
    assert areas == pytest.approx([areas[0]] * 3)
    swamped = rmia.offline_reference(phi - 690, a=0.3)
    np.testing.assert_allclose(swamped, np.log(0.35))  # as its docstring warns


def test_undefined_ratios_are_left_out():
    nan, lone = np.nan, np.zeros(3)
    assert np.isnan(rmia.score(lone, lone, np.array([nan]), lone[:1])).all()
    assert np.isnan(rmia.score(lone, lone, lone[:0], lone[:0])).all()
    found = rmia.score(np.array([nan, 1.0, -1.0]), lone, np.array([nan, 0.0]), lone[:2])
    np.testing.assert_array_equal(found, [nan, 1, 0])
    columns = np.array([[nan, -1.0, -np.inf], [nan, nan, -np.inf]])
    np.testing.assert_array_equal(rmia.online_reference(columns), [nan, -1, -np.inf])


@pytest.mark.parametrize("gamma", [0, -1, np.nan])
def test_gamma_and_a_have_ranges(gamma: float):
    zero = np.zeros(2)
    with pytest.raises(UsageError, match="Expected gamma above 0"):
        rmia.score(zero, zero, zero, zero, gamma=gamma)
    with pytest.raises(UsageError, match=r"Expected a in \[0, 1\]"):
        rmia.offline_reference(zero[None], a=gamma - 0.5)


# ---- U-LiRA --------------------------------------------------------------------------------------


def test_privacy_sees_what_unlearning_left_of_single_images():
    for left in (0, SHIFT):
        target, truth, unlearned, member = attacked(left)
        scores = lira.privacy(target - 7, unlearned - 7, member)  # the class as a whole is gone
        assert area(scores, truth) == pytest.approx(norm.cdf(left / np.sqrt(2)), abs=0.02)


def test_mean_efficacy_is_the_divergence_of_unlearned_from_retrained():
    """KL(N(μ + Δ, 1) ‖ N(μ, 1)) = Δ²/2 for the unlearned target, minus that for a retrained one."""
    rng = np.random.default_rng(0)
    member = shadow.balanced_membership(3000, 64, 0)
    difficulty = rng.normal(0, 3, 3000)
    for gap in (-1.0, 0.0, 2.0):  # over-unlearned, like retrained, residual memory
        shadows, never, target, retrained = (
            difficulty + offset + rng.normal(size=(count, 3000))
            for offset, count in ((gap, 64), (0, 32), (gap, 1), (0, 1))
        )
        found = lira.efficacy(target[0], shadows, member, never).mean()
        of_retrained = lira.efficacy(retrained[0], shadows, member, never).mean()
        assert found == pytest.approx(gap**2 / 2, abs=0.15)
        assert of_retrained == pytest.approx(-(gap**2) / 2, abs=0.15)


def test_efficacy_never_looks_at_unlearned_shadows_without_the_image():
    target, _, unlearned, member = attacked(count=30, shadows=8)
    never = np.random.default_rng(1).normal(size=(3, 30))
    before = lira.efficacy(target, unlearned, member, never)
    np.testing.assert_array_equal(
        lira.efficacy(target, np.where(member, unlearned, 1e6), member, never), before
    )
    assert np.abs(lira.efficacy(target, unlearned, member, never + 5) - before).min() > 0.1


@pytest.mark.parametrize(
    ("shadows", "retrained", "biased"),
    [
        (16, 2, (1 / 2 - 1 / 8) / 2),
        (6, 6, (1 / 6 - 1 / 3) / 2),  # K = 8, the target's pair left out
        (64, 40, 0.0),  # each image has a deviation of its own
    ],
)
def test_efficacy_is_zero_where_unlearning_is_retraining(
    shadows: int, retrained: int, biased: float
):
    """However few models of a kind there are; images differ in difficulty and in spread."""
    rng = np.random.default_rng(0)
    member = shadow.balanced_membership(40_000, shadows, 0)
    centre, spread = rng.normal(0, 3, 40_000), rng.uniform(0.5, 2, 40_000)
    target, unlearned, never = (
        centre + spread * rng.normal(size=(n, 40_000)) for n in (1, shadows, retrained)
    )
    ratios = lira.efficacy(target[0], unlearned, member, never)
    error = ratios.std() / np.sqrt(40_000)
    assert abs(ratios.mean()) < 3 * error
    plain = lira.online(target[0], lira.fit_both(unlearned, member)[0], lira.fit(never))
    assert plain.mean() == pytest.approx(biased, abs=3 * error + 0.005)


def test_efficacy_of_two_margins_of_a_kind_has_no_expectation():
    """Freedom 2 and less: the mean of the ratio is infinite, so there is nothing to subtract."""
    member = np.array([[True], [True], [False]])
    margins = np.array([[0.0], [1.0], [2.0]])
    assert np.isnan(lira.efficacy(np.zeros(1), margins, member, np.append(margins, [[3.0]], 0)))


# ---- leave one out -------------------------------------------------------------------------------


def pooled_attack(phi: np.ndarray, member: np.ndarray) -> shadow.Attack:
    return lambda rows, target: lira.pooled(phi[target], *lira.fit_both(phi[rows], member[rows]))


def test_a_target_is_never_among_its_own_shadows():
    member = shadow.balanced_membership(11, 8, 0)
    asked = []

    def attack(rows: np.ndarray, target: int) -> np.ndarray:
        asked.append(target)
        assert target not in rows
        assert len(rows) == 6
        # Membership of the shadows says nothing of the target's: three IN and three OUT for all.
        assert (member[rows].sum(0) == 3).all()
        return np.full(11, float(target))

    scores = shadow.leave_one_out(member, attack)
    assert asked == list(range(8))
    assert scores.shape == (8, 11)
    assert scores[:, 0].tolist() == asked


def test_attacks_on_every_shadow_reach_the_known_area():
    phi, member = world(1000, 34)
    found = shadow.over_targets(shadow.leave_one_out(member, pooled_attack(phi, member)), member)
    assert found["auc"] == pytest.approx(KNOWN, abs=0.02)
    assert 0 < found["auc_sd"] < 0.03
    again = shadow.leave_one_out(
        member, lambda rows, t: lira.privacy(phi[t], phi[rows], member[rows])
    )
    assert shadow.over_targets(again, member)["auc"] == pytest.approx(KNOWN, abs=0.02)


def test_leaving_only_the_target_out_is_the_mistake_that_is_avoided():
    """No leak: in pairs ½, else an area that looks over-unlearned."""
    phi, member = world(2000, 8, leak=0)
    attack = pooled_attack(phi, member)
    rows = np.arange(8)
    alone = np.stack([attack(np.delete(rows, target), target) for target in rows])
    assert shadow.over_targets(alone, member)["auc"] < 0.485
    pairs = shadow.over_targets(shadow.leave_one_out(member, attack), member)
    assert pairs["auc"] == pytest.approx(0.5, abs=0.01)


def test_shadows_that_leak_do_not_convict_a_target_that_says_nothing():
    phi, member = world(2000, 8, leak=4)

    def attack(rows: np.ndarray, target: int) -> np.ndarray:  # noqa: ARG001
        reference = rmia.online_reference(log_p(phi[rows]))
        return rmia.score(np.zeros(2000), reference, np.zeros(2000), reference)

    in_pairs = shadow.over_targets(shadow.leave_one_out(member, attack), member)
    assert in_pairs["auc"] == pytest.approx(0.5, abs=0.01)
    alone = np.stack([attack(np.delete(np.arange(8), target), target) for target in range(8)])
    assert shadow.over_targets(alone, member)["auc"] > 0.53


def test_designs_that_are_not_in_pairs_are_refused():
    member = shadow.balanced_membership(10, 6, 0)
    for wrong in (member[[0, 2, 1, 3, 4, 5]], np.ones_like(member)):
        with pytest.raises(UsageError, match="complements"):
            shadow.leave_one_out(wrong, lambda rows, target: np.zeros(10))  # noqa: ARG005
    for rows in (2, 5):
        with pytest.raises(UsageError, match=f"4 or more, but got {rows}"):
            shadow.leave_one_out(member[:rows], lambda rows, target: np.zeros(10))  # noqa: ARG005


def test_figures_by_hand():
    scores = np.arange(2400.0)
    member = np.zeros(2400, dtype=bool)
    member[1000:1400] = True  # 1000 others below, 1000 above
    found = shadow.summarise(scores, member)
    assert found["auc"] == roc_auc_score(member, scores) == 0.5
    assert (found["tpr@fpr1e-2"], found["tpr@fpr5e-2"]) == (0, 0)
    assert found["worst5"] == np.arange(1380, 1400).mean()  # the 20 highest of 400
    best = shadow.summarise(np.where(member, 3.0, -3.0), member)
    assert best == {"auc": 1, "tpr@fpr1e-2": 1, "tpr@fpr5e-2": 1, "worst5": 3}


def test_figures_without_enough_images_are_undefined():
    scores = np.arange(400.0)
    member = scores < 200
    few = shadow.summarise(scores, member)
    assert np.isnan(few["tpr@fpr1e-2"])
    assert not np.isnan(few["tpr@fpr5e-2"])
    scores[member] = np.nan
    nobody = shadow.summarise(scores, member)
    assert np.isnan(list(nobody.values())).all()
    scores[5] = 1000
    assert shadow.summarise(scores, member)["auc"] == 1
    assert shadow.summarise(scores, member)["worst5"] == 1000


def test_the_fewest_shadows_of_an_image_are_counted_without_the_targets_pair():
    assert shadow.fewest(shadow.balanced_membership(11, 8, 0)) == (3, 3)
    assert shadow.fewest(shadow.balanced_membership(11, 6, 0)) == (2, 2)


def test_classes_are_attacked_apart():
    """A score that is the class tells no members, though one class has more of them."""
    labels = np.repeat([0, 1], 40)
    member = np.array([[True] * 30 + [False] * 10 + [True] * 10 + [False] * 30] * 4)
    scores = np.tile(-1.0 * labels, (4, 1))
    assert shadow.over_targets(scores, member, labels)["auc"] == 0.5
    assert shadow.over_targets(scores, member)["auc"] == 0.75
    informed = scores + 0.1 * member
    assert shadow.over_targets(informed, member, labels)["auc"] == 1
    member[:, :40] = True
    assert np.isnan(shadow.over_targets(scores, member, labels)["auc"])


def test_figures_over_targets_are_means():
    rng = np.random.default_rng(0)
    member = shadow.balanced_membership(50, 6, 0)
    scores = rng.normal(size=(6, 50))
    areas = [roc_auc_score(m, s) for m, s in zip(member, scores, strict=True)]
    found = shadow.over_targets(scores, member)
    assert found["auc"] == pytest.approx(np.mean(areas))
    assert found["auc_sd"] == pytest.approx(np.std(areas, ddof=1))
    assert np.isnan(found["tpr@fpr5e-2"])
