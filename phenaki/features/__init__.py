"""Frozen feature networks of losses and metrics, and the readers of their public weight files."""
