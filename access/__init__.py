"""Who may ask, and how much: teams, API keys, personal tokens."""
