"""The environments. They only connect components, so each of them reads like a table of contents."""
