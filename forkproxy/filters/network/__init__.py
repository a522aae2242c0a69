"""Network (L4) filters."""
