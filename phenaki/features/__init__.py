"""Frozen feature networks for losses and metrics, and readers of their public weight files."""
