"""What we can ask for: models, and what they cost."""
