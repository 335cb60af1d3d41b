"""One driver a platform: it speaks the platform's words, and only there."""
