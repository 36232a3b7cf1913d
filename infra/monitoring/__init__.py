"""Monitoring as code: one source for every environment."""
