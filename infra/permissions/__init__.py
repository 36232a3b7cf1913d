"""The permissions of GitHub's roles: each action is named, has a reason, and the finest resource that AWS offers."""
