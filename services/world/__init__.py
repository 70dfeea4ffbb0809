"""A whole site in one process, in virtual time and under one seed: real nodes, and nothing real around them."""
