"""The policy pack's program: the engine starts it, and asks it about every resource."""

from infra.policy.pack import serve

serve()
