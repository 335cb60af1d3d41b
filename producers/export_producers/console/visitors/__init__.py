"""Who looks at the console: logins, sessions, rights, and preferences."""
