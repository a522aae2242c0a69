"""Envoy's bootstrap: from the file to what the rest of the program is built from."""
