"""From run directories to a table. Never imports torch: a table takes a second."""
