"""Streams an open download into S3: planner, reader, multipart upload, engine. No file is ever held."""
