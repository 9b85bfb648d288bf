"""Readers of what users have on disk: each lists `items.WorkUnit`s of `items.RawItem`s."""
