"""The pages of the console, one module for each, and what a page shows of the documents of the API."""
