"""Acts on many exports: retries or cancels every export that matches a filter."""
