"""The ultravisor calls: one function for each, and the table of all of them."""
