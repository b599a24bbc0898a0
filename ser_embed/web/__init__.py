"""The classifier as a page in the browser."""
