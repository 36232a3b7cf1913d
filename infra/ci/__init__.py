"""What the workflows in .github do beyond other commands: the logic is here, where it can be tested and run by hand."""
