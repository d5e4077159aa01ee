"""The use cases; each verb holds one rule."""
