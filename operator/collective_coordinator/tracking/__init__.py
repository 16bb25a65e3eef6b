"""Every round, told to where people compare trainings: MLflow and TensorBoard."""
