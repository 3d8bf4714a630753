"""From an input to one prediction: batches, how members are run, and pooling."""
