"""Captions to embeddings: the byte vocabulary and the T5 v1.1 encoder."""
