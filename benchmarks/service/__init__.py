"""The service under load, against a plain endpoint and the limit of its parts."""
