"""The engine that lets a stock qemu-system-s390x execute the guest, with firmware where a debugger sits.

QEMU is the CPU and the devices. Breakpoints stand on the few instructions that the ultravisor has to see; at a stop
the registers come and go through QEMU's gdb stub, and storage is the memory file that both processes map.
"""
