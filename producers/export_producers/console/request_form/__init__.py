"""The page New export: a form for each kind of export, made from its JSON Schema."""
