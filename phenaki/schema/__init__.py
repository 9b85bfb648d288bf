"""What every field of a config, of the sampling options and of a story may be."""
