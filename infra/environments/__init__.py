"""Wiring only: each environment reads like a table of contents."""
