"""Refuses two settings of one section of which the one must not exceed the other. Pure."""

from pydantic import BaseModel


def check_order(settings: BaseModel, lower: str, upper: str) -> None:
    """Refuses a value of `lower` above that of `upper`.

    The default of `lower` may exceed it: a configuration that sets only `upper` limits `lower`, too.

    Raises:
        ValueError: The message begins with the name of the lower setting.
    """
    low, high = getattr(settings, lower), getattr(settings, upper)
    if lower in settings.model_fields_set and low > high:
        default = "" if upper in settings.model_fields_set else ", the default"
        raise ValueError(f"{lower} must not exceed {upper} ({low:g} is above {high:g}{default})")
