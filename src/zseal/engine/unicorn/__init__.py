"""The parts that use the CPU emulator of the package unicorn: run-ahead and series of ultravisor calls."""
