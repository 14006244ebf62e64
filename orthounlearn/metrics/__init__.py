"""The audit: pure functions from logits to numbers.

Undefined values are nan, never 0: an empty split, one class in a ROC, or a false-positive rate
that too few negatives cannot resolve.
"""
