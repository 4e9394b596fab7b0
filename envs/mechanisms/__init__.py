"""Mechanisms: environments around environments, usable over any game and each other."""
