"""Validity of configured and issued tokens."""

from itertools import pairwise

from export_worker.simulator.tokens import TokenStore


def test_token_is_accepted_in_every_usual_form_until_it_expires() -> None:
    tokens = TokenStore(("t1",))
    assert all(tokens.accepts(form, 0.0) for form in ("Token t1", "Bearer t1", "t1"))
    assert not any(tokens.accepts(form, 0.0) for form in (None, "", "Token", "Token t2", "Basic t1", "token t1"))
    issued = tokens.issue(until_s=10.0)
    assert [tokens.accepts(issued, now_s) for now_s in (9.9, 10.0)] == [True, False]


def test_revoke_ends_all_issued_tokens_or_one_named_token() -> None:
    tokens = TokenStore(("t1",))
    issued = [tokens.issue(10.0) for _ in range(2)]
    assert all(one != two for one, two in pairwise(issued))
    tokens.revoke()
    assert [tokens.accepts(token, 0.0) for token in ("t1", *issued)] == [True, False, False]
    tokens.revoke("t1")
    assert not tokens.accepts("t1", 0.0)
