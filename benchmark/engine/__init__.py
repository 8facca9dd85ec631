"""One run, from a backbone and a method to a trained and evaluated model."""
