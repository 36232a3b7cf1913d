"""What a stack can leave in an AWS account: finds it, and removes what certainly belongs to the stack."""
