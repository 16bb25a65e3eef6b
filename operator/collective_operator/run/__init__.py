"""`collective run`: a task file becomes a trained model on one machine, decided by the operator's own reconcile."""
