"""Debian as a guest: fetches packages for s390x, and builds ramdisks and disks from them."""
