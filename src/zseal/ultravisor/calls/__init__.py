"""What each ultravisor call does: one function a call, and the table of all of them."""
