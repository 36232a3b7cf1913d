"""Providers that really build, push and apply, for tests on a real Docker engine and a real cluster."""
