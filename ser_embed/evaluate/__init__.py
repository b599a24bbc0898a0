"""Runs on other stores, under other conditions, and side by side."""
