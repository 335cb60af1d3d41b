"""The driver that runs a recipe: any API that submits, polls and downloads."""
