"""Streams a platform's files into S3 with bounded memory, transforms them, and resumes after interruptions."""
