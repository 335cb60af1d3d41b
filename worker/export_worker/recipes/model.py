"""What a recipe is: the models of its TOML file, with all limits. A recipe is trusted configuration. Pure.

Nothing in a recipe is executed. Its texts are of three kinds: plain texts; JMESPath expressions, which read an answer
of the API; and templates, in which `{…}` holds a JMESPath expression over these values:

- the fields of the export, each by its name
- `options.NAME`: an option of the connection that the recipe declares
- `operation_id`: the id that `submit` has read, from `poll` on
- `keep.NAME`: a value that `submit` has kept from its answer, from `poll` on
- `cursor`, `offset`, `page`: the position of a page, in requests for pages and in `catalog`
- `number`: the number of the file (1 is the first), in the name of a file
- `project`: the project of a listing, in `catalog`
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from export_worker.contract.auth import AuthSpec, NoAuth
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.wording import WEB_ADDRESS, Pattern
from export_worker.egress.hosts import split_host_and_port
from export_worker.recipes.types import (
    TABLE_MAX,
    Expression,
    Headers,
    Line,
    Name,
    Path,
    Query,
    RecipeModel,
    Table,
    Template,
    Tree,
)

KINDS_MAX = 32
"""Kinds of one recipe. Each becomes a model, a form and a part of the schema."""
FIELDS_MAX = 64
STAGES_MAX = 64
"""Names of one list of stages."""
RESERVED_FIELDS = frozenset(
    {"cursor", "keep", "kind", "number", "offset", "operation_id", "options", "page", "project"}
)
"""Names that templates use otherwise, so no field can have them."""


class FieldSpec(RecipeModel):
    """One field of a kind, or one option of the connection."""

    type: Literal["text", "integer", "number", "boolean", "list"] = "text"
    """`text`, `integer`, `number`, `boolean`, or `list` (of texts). Default `text`."""
    description: Line = ""
    """What it is, one line. Shown in the schema and in the console. Default: none."""
    example: Any = None
    """A value that the field can have. Default: none."""
    default: Any = None
    """The value if a request has none. Default: none, so that the field is required."""
    optional: bool = False
    """The field may be missing. Then what its templates are the value of is left out. Default false."""
    pattern: Annotated[str, StringConstraints(max_length=400)] | None = None
    """For texts, and the texts of a list: a regular expression for the whole text. Default: none."""
    max_chars: Annotated[int, Field(ge=1, le=65_536)] = 512
    """For texts, and the texts of a list: the most characters. Default 512, 1 to 65,536."""
    choices: Annotated[tuple[str, ...], Field(max_length=200)] = ()
    """For texts, and the texts of a list: the only allowed texts. Default: any."""
    minimum: float | None = None
    """For numbers: the lowest. Default: none."""
    maximum: float | None = None
    """For numbers: the highest. Default: none."""
    max_items: Annotated[int, Field(ge=1, le=10_000)] = 100
    """For lists: the most items. Default 100, 1 to 10,000."""

    @property
    def is_required(self) -> bool:
        """Whether a request must have the field."""
        return self.default is None and not self.optional


class GraphqlBody(RecipeModel):
    """A body of GraphQL."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=16_384)]
    """The document, at most 16,384 characters. It is sent unchanged: everything that varies is a variable. Required."""
    variables: Annotated[Mapping[str, Tree], Field(max_length=TABLE_MAX)] = {}
    """The variables. Default: none."""


class Request(RecipeModel):
    """One request to the API. Its texts are templates."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """`GET`, `POST`, `PUT`, `PATCH` or `DELETE`. Default `POST` with a body, else `GET`; `submit` states it then."""
    path: Path
    """The path below the address of the connection. A value in it is percent-encoded and is one segment. Required."""
    query: Query = {}
    """Parameters of the query string. A list becomes several parameters of one name. Default: none."""
    headers: Headers = {}
    """Headers beside those of the recipe. Default: none."""
    json_body: Tree = Field(default=None, alias="json")
    """A body as JSON. Default: none."""
    form: Table | None = None
    """A body as a form. Default: none."""
    graphql: GraphqlBody | None = None
    """A body of GraphQL. Default: none."""

    @model_validator(mode="before")
    @classmethod
    def _with_method(cls, data: Any) -> Any:
        """Sets `POST` for a request with a body that names no method."""
        if isinstance(data, Mapping) and "method" not in data and data.keys() & {"json", "form", "graphql"}:
            return {**data, "method": "POST"}
        return data

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        if sum(body is not None for body in (self.json_body, self.form, self.graphql)) > 1:
            raise ValueError("only one of json, form and graphql can be given")
        return self


class Submit(Request):
    """The request that starts the job. Without a body it must state its method: most APIs start a job with POST."""

    id: Expression
    """Finds the id of the job in the answer: a text or a number, at most 512 characters. Required."""
    keep: Annotated[Mapping[Name, Expression], Field(max_length=8)] = {}
    """Further values of the answer that later requests need, at most 8. They are shown, so none may be a secret.

    Each is a text or a number of at most 512 characters. Default: none."""

    @model_validator(mode="after")
    def _states_its_method(self) -> Self:
        if "method" not in self.model_fields_set:
            raise ValueError("method is required, because the request has no body: state GET or POST, as the API says")
        return self


class Poll(Request):
    """The request that asks for the state of the job."""

    stage: Expression
    """Finds the state in the answer: a text, a number or a boolean. Required."""
    done: Annotated[tuple[str, ...], Field(min_length=1, max_length=STAGES_MAX)]
    """The states of a job that has succeeded. Each state that no list names means that the job still runs. Required."""
    failed: Annotated[tuple[str, ...], Field(max_length=STAGES_MAX)] = ()
    """The states of a job that has failed. Default: none."""
    no_data: Annotated[tuple[str, ...], Field(max_length=STAGES_MAX)] = ()
    """The states of a job that has succeeded without a file: the export fails with `result_empty`. Default: none."""
    percent: Expression | None = None
    """Finds the progress, 0 to 100. Default: none."""
    reason: Expression | None = None
    """Finds the message of a job that has failed. Default: an excerpt of the answer."""

    @model_validator(mode="after")
    def _names_each_state_once(self) -> Self:
        stages = [*self.done, *self.failed, *self.no_data]
        for stage in stages:
            if not stage or stages.count(stage) > 1:
                raise ValueError(f"done, failed and no_data must name each state once, and none is empty: {stage!r}")
        return self


class Listing(Request):
    """Requests for the pages of a list, one after the other."""

    items: Expression = "@"
    """Finds the items of a page: a list. Default: the answer itself."""
    next: Expression | None = None
    """Finds the cursor of the next page, which the request names as `{cursor}`. Nothing means that it was the last.

    Default: none. Then a list whose request has `{offset}` or `{page}` ends with an empty page, or with one that has
    fewer items than `size`; any other list is one page."""
    next_link: Expression | None = None
    """Finds the address of the next page. Nothing means that it was the last. Default: none.

    Only its parameters are used. They take the place of `query`: host and path stay those of the list."""
    size: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many items a page has that is not the last. Default: unknown."""
    first_page: Literal[0, 1] = 1
    """The number `{page}` of the first page, 0 or 1. Default 1."""

    @model_validator(mode="after")
    def _has_one_next(self) -> Self:
        if self.next is not None and self.next_link is not None:
            raise ValueError("only one of next and next_link can be given")
        return self


class Pages(Listing):
    """A result that is read page by page and becomes one file."""

    format: Literal["jsonl", "csv"] = "jsonl"
    """The file: `jsonl` has one line of JSON for each item, `csv` a header and one line for each. Default `jsonl`."""
    columns: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """For `csv`: the members of an item that become columns. Default: those of the items of the first page.

    An item with another member is refused then, because the header has been written already."""
    source: Literal["json", "csv"] = "json"
    """What the answers are. Pages of `csv` are joined, and only the first header is kept. Default `json`."""

    @model_validator(mode="after")
    def _suits_its_source(self) -> Self:
        if self.source == "csv" and (self.next is not None or self.next_link is not None):
            raise ValueError("pages of csv have no next; use {offset} or {page}")
        return self


class Result(RecipeModel):
    """Where the files of a finished job are: at a path, behind links, or on pages."""

    path: Path | None = None
    """With `links`: the path of the request whose answer has the links. Otherwise: the path of the only file.

    Default: none."""
    method: Literal["GET", "POST"] = "GET"
    """With `path` and `links`: the method. Default `GET`."""
    query: Query = {}
    """With `path`: parameters of the query string. Default: none."""
    headers: Headers = {}
    """With `path`: headers beside those of the recipe. Default: none."""
    links: Expression | None = None
    """Finds one link or a list of links. They are read from the answer of `path`, else of `poll`, else of `submit`.

    A link is an address, or a path below the address of the connection. It is never stored or shown. Default: none."""
    pages: Pages | None = None
    """The pages that become the file. Default: none."""
    name: Template | None = None
    """The name of the file; `{number}` distinguishes several. Its extension says what the file is.

    Default: the last part of the link's path."""
    later: bool = False
    """The link is known before its file exists: status 403 or 404 means that the job still runs. Default false.

    The recipe has no `poll` then."""
    expires_s: Annotated[int, Field(ge=1, le=604_800)] = 240
    """Seconds after which a link is asked for again. So is a link that is refused. Default 240, 1 to 604,800."""
    unpack: bool = False
    """Unpacks gzip and zip, whichever the first bytes show. The files of a zip are joined into one. Default false."""

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if self.pages is not None and (self.path is not None or self.links is not None):
            raise ValueError("pages cannot be given together with path or links")
        if self.path is None and self.links is None and self.pages is None:
            raise ValueError("one of path, links and pages is required")
        if self.name is None and self.links is None:
            raise ValueError("name is required, unless the name is that of a link")
        for member in sorted(self.model_fields_set & {"query", "headers"}):
            if self.path is None:
                raise ValueError(f"{member} needs path")
        if self.links is None and "expires_s" in self.model_fields_set:
            raise ValueError("expires_s needs links")
        if self.pages is not None and self.unpack:
            raise ValueError("pages cannot be unpacked")
        if self.later and self.links is None:
            raise ValueError("later needs links")
        if self.method != "GET" and self.links is None:
            raise ValueError("method is only for a request for links")
        return self


class Example(RecipeModel):
    """Samples for `recipe check`: a request, and answers of the API as texts of JSON."""

    request: Mapping[str, Any] = {}
    """Fields of a request. Default: the examples of the fields."""
    submit: str | None = None
    """The answer to `submit`. Default: made from the recipe, as are all of the following."""
    running: str | None = None
    """The answer to `poll` while the job runs."""
    unknown: str | None = None
    """The answer to `poll` with a state that the recipe does not name."""
    done: str | None = None
    """The answer to `poll` when the job has succeeded. It has a link for each file of the result."""
    failed: str | None = None
    """The answer to `poll` when the job has failed."""
    links: str | None = None
    """The answer to the request for links."""
    page: str | None = None
    """One page of the result."""


class KindSpec(RecipeModel):
    """One kind of export."""

    title: Line
    """What it exports, one line that ends with a full stop. Required."""
    fields: Annotated[Mapping[Name, FieldSpec], Field(max_length=FIELDS_MAX)] = {}
    """The fields of a request of this kind, by name, at most 64. Default: none."""
    submit: Submit
    """The request that starts the job. Required."""
    poll: Poll | None = None
    """The request that asks for its state. Default: none, so the job is done as soon as it is submitted."""
    result: Result
    """Where its files are. Required."""
    cancel: Request | None = None
    """The request that cancels the job. Default: none."""
    delete: Request | None = None
    """The request that deletes the result at the API, after the export has succeeded. Default: none.

    It is sent once and has 10 seconds. An error is logged, and the export has succeeded all the same."""
    example: Example = Example()
    """Samples for `recipe check`. Default: made from the recipe."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for name in sorted(self.fields.keys() & RESERVED_FIELDS):
            raise ValueError(f"no field can have the name {name}, because templates use it otherwise")
        if self.result.later and self.poll is not None:
            raise ValueError("a recipe with later cannot have poll")
        return self


class ErrorRules(RecipeModel):
    """How an answer is known to be an error. Each rule is an expression over the JSON of an answer of any status.

    A rule holds if it finds something that is neither false nor empty.
    """

    success: Expression | None = None
    """Holds for every answer that is no error. Default: none, so the status decides."""
    retry: Expression | None = None
    """Holds for an error that a later attempt may not meet. Every other error is a refusal. Default: none."""
    throttled: Expression | None = None
    """Holds for an error that asks for fewer calls. The wait uses no attempt. Default: none."""
    unauthorized: Expression | None = None
    """Holds for an error about the credential. Default: none."""
    not_found: Expression | None = None
    """Holds for an error that says that the job is unknown. Default: none."""
    message: Expression | None = None
    """Finds the message of an error. Default: an excerpt of the answer."""


class Limits(RecipeModel):
    """Defaults of a connection of this recipe, for settings that the connection does not have."""

    requests_per_second: Annotated[float, Field(gt=0, le=1000)] | None = None
    """See the setting of this name. Default: that of the setting."""
    max_in_flight: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """See the setting of this name. Default: that of the setting."""
    cool_down_s: Annotated[int, Field(ge=0, le=86_400)] = 0
    """Seconds after a failed job in which the same worker starts no other job of the connection. Default 0.

    At most 86,400."""


def _checked_host(entry: str) -> str:
    split_host_and_port(entry)
    return entry


class Recipe(RecipeModel):
    """One API, as a file of TOML describes it."""

    name: Annotated[Name, StringConstraints(max_length=32)]
    """The name, at most 32 characters. A kind is `NAME.KIND`. Stored exports name it: never change it. Required."""
    title: Line
    """What the API exports, one line. Required."""
    documentation: Annotated[str, Pattern(r"^https?://\S{1,400}$", "must be an http:// or https:// address")]
    """The page that describes the API. Required."""
    base_url: Annotated[str, WEB_ADDRESS] | None = None
    """The address of the API, if it has one for all customers. A connection can name another. Default: none."""
    auth: AuthSpec = NoAuth()
    """How requests authenticate. Default: not at all."""
    hosts: Annotated[tuple[Annotated[str, AfterValidator(_checked_host)], ...], Field(max_length=32)] = ()
    """Other hosts that the API's links lead to, as in the setting `allow_hosts`, at most 32. Default: none."""
    headers: Headers = {}
    """Headers of every request to the API. Default: none."""
    limits: Limits = Limits()
    """Defaults of a connection."""
    options: Annotated[Mapping[Name, FieldSpec], Field(max_length=FIELDS_MAX)] = {}
    """What a connection can state in `options`. None of it is a secret. Default: nothing."""
    errors: ErrorRules = ErrorRules()
    """How an answer is known to be an error. Default: by its status."""
    kinds: Annotated[Mapping[Name, KindSpec], Field(min_length=1, max_length=KINDS_MAX)]
    """The kinds of export, by name, 1 to 32. Required."""
    catalog: Annotated[Mapping[Name, Listing], Field(max_length=KINDS_MAX)] = {}
    """Lists of what can be exported, by the resource of `export-worker catalog`. Default: none."""

    @model_validator(mode="after")
    def _has_own_name(self) -> Self:
        if self.name in {kind.partition(".")[0] for kind in PLATFORM_OF_KIND}:
            raise ValueError(f"the name {self.name} belongs to a built-in platform")
        return self
