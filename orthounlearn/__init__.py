"""Make an image classifier forget whole classes in milliseconds, and prove it."""

__version__ = "0.1.0"
