"""What each figure means: heading, unit, target, formula. Tables and documentation read it here."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

Target = Literal["retrained", "zero", "low", "high", "info"]
"""Where a value should be: at the retrained model's own value, at 0, as low or high as possible."""


@dataclass(frozen=True)
class Figure:
    """One figure of the audit.

    Attributes:
        pattern: Its key, with `*` for names of scores and classes.
        heading: For a table; {} is the last name of the key.
        unit: "%" is shown times 100; "ms" times 1000; "" as it is.
        target: Where it should be.
        formula: In one line, with the source if it has one.
    """

    pattern: str
    heading: str
    unit: str
    target: Target
    formula: str

    @property
    def arrow(self) -> str:
        """Return the target as a sign for a heading."""
        return {"retrained": "→R", "zero": "→0", "low": "↓", "high": "↑", "info": ""}[self.target]


CATALOG = (
    Figure("acc/forget_train", "Forget train", "%", "retrained", "accuracy on D_f; 1 − UA"),
    Figure("acc/forget_test", "Forget test", "%", "retrained", "accuracy on unseen images of the forgotten classes"),
    Figure("acc/retain_train", "Retain train", "%", "retrained", "accuracy on D_r (RA)"),
    Figure("acc/retain_val", "Retain val", "%", "retrained", "accuracy on held-out training images; chooses settings"),
    Figure("acc/retain_test", "Retain test", "%", "retrained", "accuracy on unseen images of the other classes (TA)"),
    Figure("acc/retain_test_per_class/*", "Retain test, {}", "%", "retrained", "accuracy on unseen images of one class"),
    Figure("acc/nearest_class_drop", "Worst class drop", "%", "low", "largest loss of a retained class against the original"),
    Figure("acc/test_all", "Test, all classes", "%", "info", "accuracy on all unseen images; not TA"),
    Figure("loss/*", "Loss", "", "retrained", "mean −log p_y in nats"),
    Figure("ece/retain_test", "ECE", "%", "low", "Σ_b n_b/N |accuracy − confidence|, 15 bins (arXiv 1706.04599)"),
    Figure("pred/forget_hist/*", "Routed to {}", "%", "retrained", "share of the forgotten test images that go to a class"),
    Figure("mia/pop_margin/auc", "MIA AUC", "", "retrained", "P(margin of D_f > margin of unseen images of the same class); margin: log-odds of the true class"),
    Figure("mia/pop_lr/auc", "MIA AUC", "", "retrained", "the same of a logistic regression on ten scores of each image, of its true class, the largest log-probabilities and the other classes, cross-validated over the images"),
    Figure("mia/pop_*/auc", "MIA AUC", "", "retrained", "P(score of D_f > score of unseen images of the same class)"),
    Figure("mia/pop_*/adv", "MIA advantage", "", "retrained", "2·|AUC − ½|"),
    Figure("mia/pop_*/tpr@fpr*", "MIA TPR", "%", "retrained", "true-positive rate at a low false-positive rate; empty if unresolved"),
    Figure("mia/pop_*/bacc", "MIA bal. acc", "%", "retrained", "balanced accuracy of a threshold chosen on another half"),
    Figure("mia/retained_margin/auc", "MIA AUC retained", "", "retrained", "P(margin of a retained training image > of an unseen one of its class), mean over classes: the risk of those who stay"),
    Figure("mia/neighbour/auc", "Neighbour AUC", "", "retrained", "P(log-odds of the nearest retained class among the others: forgotten > its own test images); nearest by the retrained model"),
    Figure("privacy/worst", "Worst-case privacy", "", "high", "e^−ε, ε = max |log P_u(E) / P_r(E)| over events E that a score of a forgotten image is above or below a threshold, in this and in the retrained network; 95 % lower bound of ε on images that did not choose E: 1 as after retraining"),
    Figure("lira/auc", "LiRA AUC", "", "retrained", "pooled-variance LiRA on margins over leave-one-out shadows (arXiv 2112.03570); on unlearned shadows U-LiRA, members against non-members of the same class"),
    Figure("lira/*auc_sd", "LiRA spread", "", "info", "standard deviation of that AUC over targets"),
    Figure("lira/rest_tpr@fpr*", "LiRA TPR, other classes", "%", "retrained", "as LiRA TPR, on margins where the forgotten classes are left out"),
    Figure("lira/rest_*", "LiRA, other classes", "", "retrained", "as LiRA, on the margin of the strongest class when the forgotten ones are left out: a clamped logit cannot hide it"),
    Figure("lira/tpr@fpr*", "LiRA TPR", "%", "retrained", "its true-positive rate at a low false-positive rate; empty if unresolved"),
    Figure("lira/worst5", "LiRA worst 5 %", "", "retrained", "mean log-likelihood ratio of the 5 % most exposed members, in nats"),
    Figure("lira/retained_tpr@fpr*", "LiRA TPR retained", "%", "retrained", "as LiRA TPR, on retained images"),
    Figure("lira/retained_*", "LiRA retained", "", "retrained", "as LiRA, on retained images: the risk of those who stay"),
    Figure("ulira/efficacy_llr", "U-LiRA efficacy", "", "zero", "mean log-likelihood ratio of forgotten members, unlearned against retrained shadows, in nats, less what a few shadows err by: 0 as after retraining"),
    Figure("ulira/efficacy_auc", "U-LiRA efficacy AUC", "", "low", "P(that ratio under an unlearned network > under a retrained one), on the same members: ½ as after retraining"),
    Figure("ulira/rest_efficacy_llr", "U-LiRA efficacy, other classes", "", "zero", "as U-LiRA efficacy, on the margin of the strongest class when the forgotten ones are left out: what a masked logit leaves"),
    Figure("ulira/rest_efficacy_auc", "U-LiRA efficacy AUC, other classes", "", "low", "as U-LiRA efficacy AUC, on that margin: ½ as after retraining"),
    Figure("rmia/auc", "RMIA AUC", "", "retrained", "RMIA with shadows (arXiv 2312.03262), population of the same class"),
    Figure("rmia/auc_sd", "RMIA spread", "", "info", "standard deviation of that AUC over targets"),
    Figure("rmia/tpr@fpr*", "RMIA TPR", "%", "retrained", "its true-positive rate at a low false-positive rate; empty if unresolved"),
    Figure("shadows/count", "Shadows", "", "info", "K, each trained on half of the images and the target once"),
    Figure("shadows/fewest_*", "Shadows of an image", "", "info", "smallest number of shadows in an attack that were trained on an image (in), and that were not (out)"),
    Figure("probe/*_index", "Probe index", "", "zero", "(probe_u − probe_r) / (probe_o − probe_r): 0 as after retraining, 1 nothing removed"),
    Figure("probe/k*_auc", "Probe AUC", "", "retrained", "AUC of that probe's probability, forgotten against retained test images"),
    Figure("probe/k*", "Probe recall", "%", "retrained", "share of forgotten test images that a fresh linear classifier on the features finds again, fitted on k held-out images per class; all: on as many as the audit reads, classes weighted alike"),
    Figure("probe/depth", "Probe recall, all blocks", "%", "retrained", "mean of the probe recalls of the blocks"),
    Figure("depth/index", "Depth index", "", "zero", "Σ_b (u_b − r_b) / Σ_b (o_b − r_b) over the blocks' probe recalls: 0 as after retraining, 1 nothing removed"),
    Figure("depth/shots", "Block, shots", "", "info", "k of the blocks' probes: 50, or 10 where a class has fewer images"),
    Figure("depth/*", "Block", "%", "retrained", "as probe recall, on the pooled output of one block; k = 50, or 10 where a class has fewer images"),
    Figure("depth_k*/*", "Block, other k", "%", "retrained", "the same with the k that the key names; all: on as many images as the audit reads"),
    Figure("cka/original/forget/*", "CKA to original, forgotten, block", "", "info", "linear CKA (arXiv 1905.00414, unbiased) of a block's pooled output to the original's, on unseen images of the forgotten classes: 1 is alike up to rotation and scale"),
    Figure("cka/original/retain/*", "CKA to original, retained, block", "", "info", "the same on held-out images of the other classes"),
    Figure("cka/retrained/forget/*", "CKA to retrained, forgotten, block", "", "info", "linear CKA of a block's pooled output to the retrained model's, on unseen images of the forgotten classes"),
    Figure("cka/retrained/retain/*", "CKA to retrained, retained, block", "", "info", "the same on held-out images of the other classes"),
    Figure("proto/recall", "Prototype recall", "%", "retrained", "share of forgotten test images nearest to the mean of their own class, 10 held-out images per class"),
    Figure("compat/salun_*", "MIA-efficacy", "%", "retrained", "share of D_f that an SVC on D_r against test images calls non-member (SalUn)"),
    Figure("compat/golatkar_mia", "MIA (Golatkar)", "%", "retrained", "share of D_f that a logistic attack on entropy calls member"),
    Figure("relearn/*/steps", "Relearn steps", "", "retrained", "first step with forget test accuracy ≥ 0.95 of the original's and retained accuracy ≥ max(min(start, original) − 0.05, original − 0.1), on 20 fresh images per class with D_r; empty if never"),
    Figure("relearn/*/area", "Relearn area", "%", "retrained", "mean forget test accuracy while relearning, 0 where retained accuracy is lost"),
    Figure("relearn/*/ain", "AIN", "", "info", "relearn steps over the retrained model's (arXiv 2201.05629): 1 as after retraining, ≪ 1 still there; empty if either is never"),
    Figure("relearn/*/area_ratio", "Relearn ratio", "", "info", "relearn area over the retrained model's: 1 as after retraining, ≫ 1 still there"),
    Figure("retain_ratio", "Retain ratio", "%", "high", "retain test accuracy over the original's"),
    Figure("drift/retain_test", "Retain drift", "%", "high", "retain test accuracy minus the original's on the same classes, after all requests so far"),
    Figure("sequence/step", "Step", "", "info", "place of the request in its sequence, from 1"),
    Figure("kl/*", "KL to R", "", "low", "mean KL(p_r ‖ p_u) in nats on test images; of a retrained model: to the others"),
    Figure("js/*", "JS to R", "", "low", "mean Jensen-Shannon divergence to the retrained model in bits; of a retrained model: to the others"),
    Figure("routing_js", "Routing JS", "", "low", "JS in bits of where forgotten test images go, to the retrained model; of a retrained model: to the others"),
    Figure("tow", "ToW", "", "high", "Π (1 − |Δ accuracy|) over forget train, retain train, retain test (arXiv 2406.01257)"),
    Figure("avg_gap", "Avg. gap", "%", "low", "mean |Δ| to the retrained model of UA, RA, TA, MIA-efficacy"),
    Figure("verdict/*", "Verdict", "%", "info", "share of runs with this headline; the first finding against the retrained models, beyond intervals and tolerances; ok without one"),
    Figure("time/prep_s", "Prepare s", "", "low", "seconds before the request, for all classes at once"),
    Figure("time/unlearn_s", "Request ms", "ms", "low", "time of the request, without evaluation"),
    Figure("time/retrain_s", "Retraining s", "", "info", "seconds that the retrained models took to train; mean"),
    Figure("time/speedup", "Speed-up", "", "high", "that over the time of the request, preparation left out"),
    Figure("latency/batch*_s", "Latency ms", "ms", "low", "median time of a forward pass of as many images as the key says"),
    Figure("latency/batch*_ratio", "Latency ratio", "", "info", "that over the original's, measured in turn: 1 is as fast"),
)  # fmt: skip
"""In the order of a reader's questions; keys that are made of others are those of `_DERIVED`."""


_DERIVED: dict[str, tuple[str, Target, str]] = {
    "_gap": ("Δ {heading}", "low", "{formula}; minus the retrained model's"),
    "_gap_low": ("Δ {heading}, from", "info", "lower end of the paired 95 % bootstrap interval over images of the difference to the retrained models: {formula}"),
    "_gap_high": ("Δ {heading}, to", "info", "upper end of the paired 95 % bootstrap interval over images of the difference to the retrained models: {formula}"),
    "_low": ("{heading}, from", "info", "lower end of the 95 % bootstrap interval over images: {formula}"),
    "_high": ("{heading}, to", "info", "upper end of the 95 % bootstrap interval over images: {formula}"),
}  # fmt: skip


_OWN = ("_low", "_high")
_OF_CLASSES = ("acc/retain_test_per_class/", "pred/forget_hist/")
# A user's class may be called very_low; no figure of a class has an interval of its own.


def figure(key: str) -> Figure:
    """Return the entry of a key (without phase); gaps and their intervals have theirs too.

    Raises:
        KeyError: The key is not in the catalog.
    """
    for entry in CATALOG:
        if entry.pattern == key:
            return entry
    for ending, (heading, target, formula) in _DERIVED.items():
        # Before the patterns, whose `*` would take it for the figure.
        if key.endswith(ending) and not (ending in _OWN and key.startswith(_OF_CLASSES)):
            try:
                base = figure(key.removesuffix(ending))
            except KeyError:  # avg_gap_low is no gap of avg
                continue
            names = {"heading": base.heading, "formula": base.formula}
            return Figure(key, heading.format(**names), base.unit, target, formula.format(**names))
    for entry in CATALOG:
        if fnmatchcase(key, entry.pattern):
            return replace(entry, heading=entry.heading.format(key.rpartition("/")[2]))
    raise KeyError(key)
