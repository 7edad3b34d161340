"""What a gradient is taken of: names, scores, heads and references."""
