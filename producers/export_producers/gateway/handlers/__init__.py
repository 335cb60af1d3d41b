"""The handlers of the API's calls."""
