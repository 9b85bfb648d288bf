"""Phenaki in JAX: video of any length from a sequence of text prompts (arXiv 2210.02399)."""

__version__ = "0.1.0"
