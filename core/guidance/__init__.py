"""Steering: objectives, constraints, guides and the Pareto archive."""
