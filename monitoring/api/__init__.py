"""REST over what happened, and the words that every app's REST is written in."""
