"""A task's keys and certificates: made, checked, renewed, and kept in Secrets that only its own pods mount."""
