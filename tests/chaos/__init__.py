"""Real processes of export-worker under kills, freezes, cut connections, late answers and faults of S3 and platform."""
