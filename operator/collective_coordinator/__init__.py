"""The program that drives the rounds: proposals, votes, checkpoints. It talks MLI and knows nothing of Kubernetes."""
