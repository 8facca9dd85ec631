"""What is asked for, in full: recipes, specs and their keys, plans."""
