"""Access logs: command operators compiled to one function per line, filters, and the files that lines go to."""
