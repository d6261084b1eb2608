"""The software ultravisor."""
