"""What the API says and describes: its models and the OpenAPI document."""
