"""IBM Secure Execution (s390x protected virtualization) in Python: images, host keys, and a software ultravisor."""

__version__ = "0.1.0"
