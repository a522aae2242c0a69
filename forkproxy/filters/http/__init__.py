"""HTTP (L7) filters."""
