"""The demonstration: what protection promises, shown on a guest that runs."""
