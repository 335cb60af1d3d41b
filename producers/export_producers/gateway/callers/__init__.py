"""Who calls: keys, people behind a proxy, roles, and who may do what."""
