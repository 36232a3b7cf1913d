"""The sources of raw tables."""
