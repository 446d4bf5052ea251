"""The stages of a run that come after training."""
