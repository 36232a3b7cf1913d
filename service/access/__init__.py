"""Who may call the service: API keys, their limits, and the addresses of callers behind proxies."""
