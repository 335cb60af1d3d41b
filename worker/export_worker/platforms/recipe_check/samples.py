"""The export, the settings and the answers with which a recipe is checked. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from export_worker.contract.auth import NoAuth, OAuthAuth
from export_worker.contract.kinds import OtherKind
from export_worker.errors import ConfigError, InvalidRequestError
from export_worker.platforms.recipe.operations import has_sealed_link
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
UNKNOWN = "MOONSTRUCK"
"""The name of a state that no recipe has."""


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


def export_of(recipe: Recipe, name: str, *, is_minimal: bool = False) -> OtherKind:
    """Returns an export of a kind, from the examples of the recipe.

    Args:
        is_minimal: Only with the fields that are required.

    Raises:
        ConfigError: A field needs an example, or the example of the kind does not fit its fields.
    """
    spec, kind = recipe.kinds[name], f"{recipe.name}.{name}"
    path = f"kinds.{name}"
    fields = {
        field: _value(f"{path}.fields.{field}", declared)
        for field, declared in spec.fields.items()
        if declared.is_required or (declared.example is not None and not is_minimal)
    }
    stated = {field: value for field, value in spec.example.request.items() if field in fields or not is_minimal}
    try:
        export: OtherKind = kind_models(recipe)[kind].model_validate({"kind": kind, **fields, **stated})
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
        links = [f"/played-{number}" for number in range(self.files)]
        checks: list[Callable[[], Any]] = [lambda: self.submit("1", links)]
        if self._kind.poll is not None:
            checks += [lambda: self.poll("running", links), lambda: self.poll("done", links)]
            has_failed = self._kind.poll.failed or self._kind.example.failed
            checks += [lambda: self.poll("failed", links)] if has_failed else []
            checks += [lambda: self.poll("running", links, UNKNOWN)] if self._kind.example.unknown else []
        if self._kind.result.path is not None and self._kind.result.links is not None:
            checks.append(lambda: self.links(links))
        return checks

    @property
    def files(self) -> int:
        """How many files the result has: as many as the sample names, and one without a sample."""
        kind = self._kind
        asked = "links" if kind.result.path is not None else "done" if kind.poll is not None else "submit"
        sample = getattr(kind.example, asked)
        if kind.result.links is None or sample is None:
            return 1
        try:
            found = expression(kind.result.links).value(json.loads(sample))
        except ValueError:
            return 1  # the sample is refused
        return max(1, len(found)) if isinstance(found, list) else 1

    @property
    def has_unknown_stage(self) -> bool:
        """Whether the API can play a state that the recipe does not name."""
        try:
            self.poll("running", [], UNKNOWN)
        except ConfigError:
            return False
        return True

    def submit(self, job: str, links: Sequence[str]) -> Any:
        """Returns the answer to a submit."""
        submit, kind = self._kind.submit, self._kind
        if kind.example.submit is not None:
            answer = self._renamed(json.loads(kind.example.submit), job)
            return self._with_links("submit", answer, links) if has_sealed_link(kind) else answer
        values: dict[str, Any] = {submit.id: job, **dict.fromkeys(submit.keep.values(), KEPT)}
        if kind.result.links is not None and has_sealed_link(kind):
            values[kind.result.links] = _links(kind.result.links, links)
        return self._made("submit", values)

    def poll(self, state: str, links: Sequence[str], stage: str | None = None) -> Any:
        """Returns the answer to a poll.

        Args:
            state: `running`, `done` or `failed`.
            stage: The name of the state; by default one of the recipe.
        """
        poll, result = self._kind.poll, self._kind.result
        if poll is None:
            raise NotInvertibleError("poll")
        name = state if stage is None else "unknown"
        sample = getattr(self._kind.example, name)
        if sample is not None:
            answer = json.loads(sample)
            self._check_state(name, answer)
            is_linked = state == "done" and result.links is not None and result.path is None
            return self._with_links("done", answer, links) if is_linked else answer
        named = stage or {"running": "RUNNING_NOW", "done": poll.done[0], "failed": (*poll.failed, "")[0]}[state]
        values: dict[str, Any] = {poll.stage: named}
        if state == "failed" and poll.reason is not None:
            values[poll.reason] = REASON
        if state == "done" and result.links is not None and result.path is None:
            values[result.links] = _links(result.links, links)
        return self._made(name, values)

    def links(self, links: Sequence[str]) -> Any:
        """Returns the answer to the request for links."""
        source = self._kind.result.links or "@"
        if self._kind.example.links is not None:
            return self._with_links("links", json.loads(self._kind.example.links), links)
        return self._made("links", {source: _links(source, links)})

    def page(self, items: str, rows: Any) -> Any:
        """Returns the answer to a request for a page."""
        return self._made("page", {items: rows})

    def _made(self, sample: str, values: Mapping[str, Any]) -> Any:
        document, success = None, self._recipe.errors.success
        try:
            document = satisfying(success) if success else None
        except (NotInvertibleError, TypeError):
            raise self._needed(sample, f"{success} holds") from None
        for source, value in values.items():
            try:
                document = with_value(source, value, document)
            except (NotInvertibleError, TypeError):
                raise self._needed(sample, f"{source} finds {json.dumps(value)}") from None
        for source, value in values.items():
            if expression(source).value(document) != value:
                raise self._needed(sample, f"{source} finds {json.dumps(value)}")
        return document

    def _check_state(self, state: str, answer: Any) -> None:
        """Checks that a sample has a state that the recipe names so: otherwise each check would wait for it in vain."""
        poll = self._kind.poll
        if poll is None:
            return
        found = as_text(expression(poll.stage).value(answer))
        if found is None:
            raise self._wrong(state, f"it has no state at {poll.stage}")
        is_open = state in {"running", "unknown"}
        is_named = is_running(self._kind, found) if is_open else found in getattr(poll, state)
        if not is_named:
            rule = "a state that no list names" if is_open else f"one of poll.{state}"
            raise self._wrong(state, f"its state must be {rule}, not {found}")

    def _renamed(self, answer: Any, job: str) -> Any:
        """Returns a sample of the answer to a submit with the id of a played job in the place of its own id."""
        submit = self._kind.submit
        for name, source in {"id": submit.id, **submit.keep}.items():
            if as_text(expression(source).value(answer)) is None:
                raise self._wrong("submit", f"it has no {name} at {source}")
        own = expression(submit.id).value(answer)
        return json.loads(json.dumps(answer).replace(json.dumps(own), json.dumps(job)))

    def _with_links(self, sample: str, answer: Any, links: Sequence[str]) -> Any:
        """Returns a sample with the links of the played files in the place of its own links."""
        source = self._kind.result.links or "@"
        found = expression(source).value(answer)
        own = found if isinstance(found, list) else [found]
        if not own or not all(isinstance(link, str) for link in own):
            raise self._wrong(sample, f"it has no link at {source}")
        text = json.dumps(answer)
        for link, played in zip(own, links, strict=False):
            text = text.replace(json.dumps(link), json.dumps(played))
        played_answer = json.loads(text)
        if expression(source).value(played_answer) == found and list(links) != own:
            raise self._wrong(sample, f"{source} computes its links, so the check cannot play them")
        return played_answer

    def _wrong(self, sample: str, problem: str) -> ConfigError:
        return ConfigError(f"kinds.{self._name}.example.{sample}: {problem}")

    def _needed(self, sample: str, what: str) -> ConfigError:
        return self._wrong(sample, f"is needed for the check: no answer can be made in which {what}")


def _links(source: str, links: Sequence[str]) -> Any:
    try:
        with_value(source, links[0])
    except NotInvertibleError:
        return list(links)  # the expression finds a list
    return links[0]


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
