"""Measures of videos, each a pure function of pixels in [0, 1]."""
