"""The export, the settings and the answers with which a recipe is checked. Pure."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from export_worker.contract.auth import NoAuth, OAuthAuth
from export_worker.contract.kinds import OtherKind
from export_worker.errors import ConfigError, InvalidRequestError
from export_worker.platforms.recipe_check.documents import NotInvertibleError, satisfying, with_value
from export_worker.recipes.fields import kind_models
from export_worker.recipes.model import FieldSpec, KindSpec, Recipe
from export_worker.recipes.templates import as_text, expression

SECRETS = {
    "token": "canary-token-5c1d9e70",
    "api_key": "canary-key-77b0c4d2",
    "client_secret": "canary-oauth+secret/8b2f41aa",
}
"""Secrets of the checked connection. They look like secrets, and are none."""
TOKEN_PATH = "/oauth/token"  # noqa: S105 - a path
REASON = "the played job failed"
ROWS = ({"id": "1", "name": "Zoë"}, {"id": "2", "name": "张三"})
"""The items of a page."""
KEPT = "kept-1"


def checked_recipe(recipe: Recipe) -> Recipe:
    """Returns the recipe with an authentication that the played server has, in the place of OAuth 2."""
    if not isinstance(recipe.auth, OAuthAuth):
        return recipe
    return recipe.model_copy(update={"auth": OAuthAuth(token_url=TOKEN_PATH, client_id="recipe-check")})


def secrets_of(recipe: Recipe) -> dict[str, str]:
    """Returns the secrets of the settings that the authentication names."""
    named = set(recipe.auth.model_dump().values()) if not isinstance(recipe.auth, NoAuth) else set()
    if isinstance(recipe.auth, OAuthAuth):
        named = {"client_secret"}
    return {setting: secret for setting, secret in SECRETS.items() if setting in named}


def options_of(recipe: Recipe) -> dict[str, Any]:
    """Returns options for a connection with this recipe. Raises ConfigError as `export_of`."""
    return {name: _value(f"options.{name}", spec) for name, spec in recipe.options.items() if spec.is_required}


def export_of(recipe: Recipe, name: str) -> OtherKind:
    """Returns an export of a kind, from the examples of the recipe.

    Raises:
        ConfigError: A field needs an example, or the example of the kind does not fit its fields.
    """
    spec, kind = recipe.kinds[name], f"{recipe.name}.{name}"
    path = f"kinds.{name}"
    fields = {
        field: _value(f"{path}.fields.{field}", declared)
        for field, declared in spec.fields.items()
        if declared.example is not None or declared.is_required
    }
    try:
        export: OtherKind = kind_models(recipe)[kind].model_validate({"kind": kind, **fields, **spec.example.request})
    except ValueError as error:
        raise ConfigError(f"{path}.example.request: does not fit the fields of the kind: {error}") from None
    return export


def _value(path: str, spec: FieldSpec) -> Any:
    if spec.example is not None:
        return spec.example
    if spec.choices:
        return [spec.choices[0]] if spec.type == "list" else spec.choices[0]
    if spec.pattern is not None:
        raise ConfigError(f"{path}.example: is needed for the check, because the field has a pattern")
    number = max(1, spec.minimum or 1) if spec.maximum is None else spec.maximum
    values: Mapping[str, Any] = {"text": "example", "list": ["example"], "boolean": True, "number": float(number)}
    return values.get(spec.type, int(number))


class Answers:
    """The answers of the played API for one kind.

    Args:
        recipe: The recipe.
        name: The name of the kind.

    Raises:
        ConfigError: An answer cannot be made from the expressions, so the recipe must give a sample. Each problem names
            the field that is needed.
    """

    def __init__(self, recipe: Recipe, name: str) -> None:
        self._recipe, self._kind, self._name = recipe, recipe.kinds[name], name
        problems = [problem for check in self._checks() if (problem := _problem_of(check))]
        if problems:
            raise ConfigError(*problems)

    def _checks(self) -> list[Callable[[], Any]]:
        checks: list[Callable[[], Any]] = [lambda: self.submit("1", "/f")]
        if self._kind.poll is not None:
            checks += [lambda: self.poll("running", "/f"), lambda: self.poll("done", "/f")]
            checks += [lambda: self.poll("failed", "/f")] if self._kind.poll.failed else []
        if self._kind.result.path is not None and self._kind.result.links is not None:
            checks.append(lambda: self.links("/f"))
        return checks

    def submit(self, job: str, link: str) -> Any:
        """Returns the answer to a submit."""
        submit, kind = self._kind.submit, self._kind
        if kind.example.submit is not None:
            return self._renamed(json.loads(kind.example.submit), job)
        values: dict[str, Any] = {submit.id: job, **dict.fromkeys(submit.keep.values(), KEPT)}
        if kind.poll is None and kind.result.path is None and kind.result.links is not None:
            values[kind.result.links] = _links(kind.result.links, link)
        return self._made("submit", values)

    def poll(self, state: str, link: str, stage: str | None = None) -> Any:
        """Returns the answer to a poll.

        Args:
            state: `running`, `done` or `failed`.
            stage: The name of the state; by default one of the recipe.
        """
        poll, result = self._kind.poll, self._kind.result
        if poll is None:
            raise NotInvertibleError("poll")
        sample = getattr(self._kind.example, state)
        if sample is not None and stage is None:
            answer = json.loads(sample)
            self._check_state(state, answer)
            is_linked = state == "done" and result.links is not None and result.path is None
            return self._with_link("done", answer, result.links, link) if is_linked else answer
        named = stage or {"running": "RUNNING_NOW", "done": poll.done[0], "failed": (*poll.failed, "")[0]}[state]
        values: dict[str, Any] = {poll.stage: named}
        if state == "failed" and poll.reason is not None:
            values[poll.reason] = REASON
        if state == "done" and result.links is not None and result.path is None:
            values[result.links] = _links(result.links, link)
        answer = self._made(state, values)
        if as_text(expression(poll.stage).value(answer)) != named:
            raise self._needed(state)
        return answer

    def links(self, link: str) -> Any:
        """Returns the answer to the request for links."""
        source = self._kind.result.links or "@"
        if self._kind.example.links is not None:
            return self._with_link("links", json.loads(self._kind.example.links), source, link)
        return self._made("links", {source: _links(source, link)})

    def page(self, items: str, rows: Any) -> Any:
        """Returns the answer to a request for a page."""
        return self._made("page", {items: rows})

    def _made(self, sample: str, values: Mapping[str, Any]) -> Any:
        try:
            document = satisfying(self._recipe.errors.success) if self._recipe.errors.success else None
            for source, value in values.items():
                document = with_value(source, value, document)
        except (NotInvertibleError, TypeError) as error:
            raise self._needed(sample) from error
        return document

    def _check_state(self, state: str, answer: Any) -> None:
        """Checks that a sample has a state that the recipe names so: otherwise each check would wait for it in vain."""
        poll = self._kind.poll
        if poll is None:
            return
        found = as_text(expression(poll.stage).value(answer))
        if found is None:
            raise self._wrong(state, f"it has no state at {poll.stage}")
        is_named = is_running(self._kind, found) if state == "running" else found in getattr(poll, state)
        if not is_named:
            rule = "a state that no list names" if state == "running" else f"one of poll.{state}"
            raise self._wrong(state, f"its state must be {rule}, not {found}")

    def _renamed(self, answer: Any, job: str) -> Any:
        """Returns a sample of the answer to a submit with the id of a played job in the place of its own id."""
        submit = self._kind.submit
        for name, source in {"id": submit.id, **submit.keep}.items():
            if as_text(expression(source).value(answer)) is None:
                raise self._wrong("submit", f"it has no {name} at {source}")
        own = expression(submit.id).value(answer)
        return json.loads(json.dumps(answer).replace(json.dumps(own), json.dumps(job)))

    def _with_link(self, sample: str, answer: Any, source: str | None, link: str) -> Any:
        """Returns a sample with the link of the played file in the place of its own links."""
        found = expression(source or "@").value(answer)
        links = found if isinstance(found, list) else [found]
        if not links or not all(isinstance(own, str) for own in links):
            raise self._wrong(sample, f"it has no link at {source}")
        text = json.dumps(answer)
        for own in links:
            text = text.replace(json.dumps(own), json.dumps(link))
        return json.loads(text)

    def _wrong(self, sample: str, problem: str) -> ConfigError:
        return ConfigError(f"kinds.{self._name}.example.{sample}: {problem}")

    def _needed(self, sample: str) -> ConfigError:
        return ConfigError(f"kinds.{self._name}.example.{sample}: is needed for the check: an answer cannot be made")


def _links(source: str, link: str) -> Any:
    try:
        with_value(source, link)
    except NotInvertibleError:
        return [link]  # the expression finds a list
    return link


def _problem_of(check: Callable[[], Any]) -> str | None:
    try:
        check()
    except ConfigError as error:
        return error.problems[0]
    except (ValueError, InvalidRequestError) as error:
        return f"example: a sample is not JSON, or does not fit the recipe: {error}"
    return None


def is_running(kind: KindSpec, stage: str) -> bool:
    """Returns whether a name of a state means that the job still runs."""
    poll = kind.poll
    return poll is not None and stage not in {*poll.done, *poll.failed, *poll.no_data}
