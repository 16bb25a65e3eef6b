"""What the operator and the coordinator serve HTTP with; it knows neither of them."""
