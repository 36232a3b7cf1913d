"""What GitHub's roles may do: every action by name, with why, on as little as AWS can name."""
