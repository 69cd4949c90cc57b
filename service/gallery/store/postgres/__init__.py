"""The store in PostgreSQL, which several service nodes share; needs psycopg."""
