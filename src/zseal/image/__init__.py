"""Boot images: build, read, verify and describe."""
