"""What executes guest instructions and hands traps to the ultravisor."""
