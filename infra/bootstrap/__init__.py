"""What an account needs once: what is there already, and where the state of bootstrap itself is kept."""
