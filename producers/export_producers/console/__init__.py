"""The web console: pages over the same functions as the HTTP API. It keeps no data but the logins of its users."""
