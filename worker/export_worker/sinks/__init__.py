"""One file a sink: where completion events go out."""
