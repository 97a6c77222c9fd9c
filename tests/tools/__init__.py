"""The campaign and the benchmark."""
