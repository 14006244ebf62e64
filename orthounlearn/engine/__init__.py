"""The jobs, and the folders that they leave behind."""
