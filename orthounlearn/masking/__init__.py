"""Channels of a class: find them, measure them, score them, attenuate them."""
