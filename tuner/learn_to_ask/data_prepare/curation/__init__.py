"""Which sessions teach: rules on logs, near-duplicates, personal data, language, a judge, and the split."""
