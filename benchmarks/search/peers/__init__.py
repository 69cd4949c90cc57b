"""Other people's indexes: over whole codes, and over prefixes with rescoring."""
