"""Real providers, for tests with a real Docker engine and a real cluster."""
