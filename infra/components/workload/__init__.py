"""The service in the cluster: pods behind a load balancer, under restricted Pod Security, closed but for need."""
