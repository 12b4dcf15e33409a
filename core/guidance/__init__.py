"""Steering: objectives, constraints, guides and surrogates, and the Pareto archive."""
