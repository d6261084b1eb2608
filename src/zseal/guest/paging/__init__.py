"""Paging: moves pages of a running guest out to a file and back, as a host does."""
