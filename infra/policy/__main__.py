"""The policy pack's program: the engine starts it, and asks it about every resource."""

from infra.plugin import end_with_engine
from infra.policy.pack import serve

end_with_engine()
serve()
