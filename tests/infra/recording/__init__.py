"""Recording providers: the real engine runs the AWS program against them, without an account."""
