"""Structs, names and errors; no input or output."""
