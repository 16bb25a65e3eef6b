"""The only IO with a cluster: a small protocol, Kubernetes behind it in production, local processes on a laptop."""
