"""What processes that serve together hold in common: limits, claims, answers, news. Each works alone where nobody else is there."""
