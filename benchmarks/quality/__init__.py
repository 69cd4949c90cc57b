"""Objectives compared with each other by the quality of their codes at each length."""
