"""A run's directory: what it logs, keeps, resumes from and says on the screen."""
