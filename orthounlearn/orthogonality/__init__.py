"""Orthogonal kernels: the measures, and the penalties made of them."""
