"""Readers of what users have on disk: each lists `raw.Unit`s of `raw.RawItem`s."""
