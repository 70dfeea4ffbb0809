"""Leaf helpers. Imports nothing of ours."""
