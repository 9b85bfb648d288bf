"""Text encoding: vocabularies, the frozen T5 v1.1 encoder, and readers of its checkpoints."""
