"""Who may call: configured tokens, and those that the OAuth grant has issued."""

from math import inf
from secrets import token_hex


class TokenBook:
    """The tokens that are good now.

    Args:
        configured: Good until they are revoked.
    """

    def __init__(self, configured: tuple[str, ...]) -> None:
        self._configured = configured
        self._until_s: dict[str, float] = dict.fromkeys(configured, inf)
        self.grants = 0
        """OAuth calls so far, refused ones included."""

    def accepts(self, authorization: str | None, now_s: float) -> bool:
        """Whether a header is right: `Token <t>`, `Bearer <t>` or the token alone."""
        if authorization is None:
            return False
        scheme, _, rest = authorization.partition(" ")
        token = rest if scheme in {"Token", "Bearer"} else authorization
        return self._until_s.get(token, -inf) > now_s

    def issue(self, until_s: float) -> str:
        """A new token, good until then."""
        token = f"issued-{token_hex(16)}"
        self._until_s[token] = until_s
        return token

    def revoke(self, token: str | None = None) -> None:
        """End the life of one token, or of all that were issued."""
        for name in [token] if token is not None else [name for name in self._until_s if name not in self._configured]:
            self._until_s.pop(name, None)
