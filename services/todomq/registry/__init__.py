"""The registry: which process answers to which name, where, and whether it lives."""
