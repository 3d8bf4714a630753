"""What predictions are worth, and what is sure about it."""
