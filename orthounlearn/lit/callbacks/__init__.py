"""Callbacks: each registers, logs or triggers one thing; the numerics are elsewhere."""

from orthounlearn.lit.callbacks.image_sizes import ImageSizes
from orthounlearn.lit.callbacks.orthogonality import Orthogonality
from orthounlearn.lit.callbacks.status import Status
from orthounlearn.lit.callbacks.unlearn import UnlearnOnFitEnd

__all__ = ["ImageSizes", "Orthogonality", "Status", "UnlearnOnFitEnd"]
