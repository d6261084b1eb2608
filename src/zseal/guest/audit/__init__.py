"""The I/O audit: checks that devices are given only pages that the guest shares."""
