"""Images and labels: sources, splits, audit and the array store. Knows nothing of models."""
