"""The admin's languages: whose turn it is (`choosing`), labels of models (`labels`), what is to be translated (`collecting`, `stored`)."""
