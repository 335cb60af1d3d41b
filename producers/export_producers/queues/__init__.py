"""Several namespaces, on one Redis or on several, behind one gateway."""
