"""The teaching host: a small hypervisor with guests, frames, paging and devices that needs no engine."""
