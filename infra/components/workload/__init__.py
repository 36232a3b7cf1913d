"""The service in the cluster: pods behind a load balancer, with restricted Pod Security and NetworkPolicies."""
