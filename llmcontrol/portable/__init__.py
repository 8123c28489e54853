"""The configuration as one document: written, compared with what is here, and taken. `document` is its form, `registry` what is in it."""
