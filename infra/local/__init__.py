"""The `local` resource provider: directories, files and supervised processes on this machine."""
