"""The experiments of the papers: recipes at their settings, the pages and pictures of the runs."""
