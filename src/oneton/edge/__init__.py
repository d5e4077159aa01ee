"""The HTTP edge: each dialect is one module that translates a wire format to a verb and back."""
