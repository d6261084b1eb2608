"""The engine that lets a stock qemu-system-s390x execute the guest, with firmware where a debugger sits.

QEMU is the CPU and the devices. Breakpoints are on the few instructions that the ultravisor has to see. At a stop,
zseal accesses the registers through QEMU's gdb stub and storage through the memory file that both processes map.
"""
