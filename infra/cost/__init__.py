"""A stack's monthly cost, computed with the prices in this folder."""
