"""PyTorch twins of learning rules: the same names and configuration keys."""
