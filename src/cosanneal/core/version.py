"""The version of cosanneal."""

__version__ = "0.1.0"
