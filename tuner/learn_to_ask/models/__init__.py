"""What a path leads to: a model, a checkpoint, an adapter."""
