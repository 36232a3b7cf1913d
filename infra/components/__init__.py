"""AWS and Kubernetes components, one a file: Args and a ComponentResource."""
