"""Readers of input layouts: each returns an `items.Inventory`, or None for another layout."""
