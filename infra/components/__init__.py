"""AWS and Kubernetes components; each file contains a component's Args and its ComponentResource."""
