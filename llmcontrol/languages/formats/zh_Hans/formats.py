"""Figures are grouped by three, as in the rest of a page: 1,234,567."""

THOUSAND_SEPARATOR = ","
NUMBER_GROUPING = 3
