"""The valid tokens: the configured ones, and those that the OAuth grant has issued."""

from math import inf
from secrets import token_hex


class TokenStore:
    """The tokens that are valid now.

    Args:
        configured: Tokens that are valid until they are revoked.
    """

    def __init__(self, configured: tuple[str, ...]) -> None:
        self._configured = configured
        self._until_s: dict[str, float] = dict.fromkeys(configured, inf)
        self.grants = 0
        """The number of OAuth calls so far. Refused calls count, too."""

    def accepts(self, authorization: str | None, now_s: float) -> bool:
        """Returns whether a header has a valid token: `Token <t>`, `Bearer <t>` or `<t>`."""
        if authorization is None:
            return False
        scheme, _, rest = authorization.partition(" ")
        token = rest if scheme in {"Token", "Bearer"} else authorization
        return self._until_s.get(token, -inf) > now_s

    def issue(self, until_s: float) -> str:
        """Returns a new token that is valid until `until_s`."""
        token = f"issued-{token_hex(16)}"
        self._until_s[token] = until_s
        return token

    def revoke(self, token: str | None = None) -> None:
        """Revokes one token, or all issued tokens."""
        for name in [token] if token is not None else [name for name in self._until_s if name not in self._configured]:
            self._until_s.pop(name, None)
