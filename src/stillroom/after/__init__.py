"""What is done to a finished run."""
