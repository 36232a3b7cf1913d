"""What an account needs once: finds what exists already, and manages the state of bootstrap itself."""
