"""What a stack can leave in an AWS account: found, swept where it is surely the stack's, and named."""
