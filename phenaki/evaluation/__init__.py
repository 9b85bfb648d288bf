"""The protocols of Tables 1 to 5: from a model and a data set to numbers that say what they are."""
