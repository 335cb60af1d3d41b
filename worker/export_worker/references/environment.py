"""Variables of the process that other programs read, too."""

import os


def proxy_variables() -> dict[str, str]:
    """Returns the variables of the process that name proxies, such as `HTTPS_PROXY`. They may contain passwords."""
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
