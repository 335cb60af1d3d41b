"""The GraphQL documents that the driver sends to GrowingIO. They are constants; everything that varies is a variable.

They follow GrowingIO's operation guide and GraphQL reference, or its Java SDK for what these two do not describe. A
deployment refuses a whole document with an unknown field, so only fields that GrowingIO's documents describe are
selected.
"""

from dataclasses import dataclass

from export_worker.platforms.http.graphql import Document

SUBMIT_TAG_BY_KEY = Document(
    name="SubmitTagUserExportJobByKey",
    field="submitTagUserExportJobByKey",
    starts_work=True,
    text="""\
mutation SubmitTagUserExportJobByKey($parameter: TagUserExportJobByKeyInput!) {
  submitTagUserExportJobByKey(parameter: $parameter) { id stage error { code message } }
}
""",
)

SUBMIT_TAG = Document(
    name="SubmitTagUserExportJob",
    field="submitTagUserExportJob",
    starts_work=True,
    text="""\
mutation SubmitTagUserExportJob($tagId: HashId!, $properties: [String!], $charset: String, $detailExport: Boolean) {
  submitTagUserExportJob(tagId: $tagId, properties: $properties, charset: $charset, detailExport: $detailExport) {
    id stage error { code message }
  }
}
""",
)

SUBMIT_TAG_NAMED = Document(
    name="SubmitTagUserExportJob",
    field="submitTagUserExportJob",
    starts_work=True,
    text="""\
mutation SubmitTagUserExportJob(
  $tagId: HashId!
  $exportFileName: String
  $properties: [String!]
  $charset: String
  $detailExport: Boolean
) {
  submitTagUserExportJob(
    tagId: $tagId
    exportFileName: $exportFileName
    properties: $properties
    charset: $charset
    detailExport: $detailExport
  ) {
    id stage error { code message }
  }
}
""",
)
"""For an export that names its file. Only the SDK has the argument `exportFileName`. A deployment without this
argument still accepts `SUBMIT_TAG`, for exports that do not name their file."""

SUBMIT_SEGMENT = Document(
    name="SubmitSegmentUserExportJob",
    field="submitSegmentUserExportJob",
    starts_work=True,
    text="""\
mutation SubmitSegmentUserExportJob(
  $projectId: HashId!
  $segmentId: HashId!
  $tags: [HashId!]
  $properties: [String!]
  $charset: String
) {
  submitSegmentUserExportJob(
    projectId: $projectId
    segmentId: $segmentId
    tags: $tags
    properties: $properties
    charset: $charset
  ) {
    id stage error { code message }
  }
}
""",
)

SUBMIT_ANALYSIS = Document(
    name="SubmitAnalysisExportJob",
    field="submitAnalysisExportJob",
    starts_work=True,
    text="""\
mutation SubmitAnalysisExportJob($projectId: HashId!, $id: HashId!, $param: AnalysisExportJobParam!, $charset: String) {
  submitAnalysisExportJob(projectId: $projectId, id: $id, param: $param, charset: $charset) {
    id stage error { code message }
  }
}
""",
)

JOB_RESULT = Document(
    name="JobResult",
    field="jobResult",
    text="query JobResult($id: String!) { jobResult(id: $id) { id stage uris } }\n",
)
"""`jobResult` has no `error` field, so the platform states no reason for ERROR."""

PROJECTS = Document(
    name="Projects",
    field="projects",
    text="query Projects { projects { id name description createdAt creator } }\n",
)

DATA_CENTER_TAGS = Document(
    name="DataCenterTags",
    field="dataCenterTags",
    text="query DataCenterTags { dataCenterTags { id key name type description createdAt updatedAt creator } }\n",
)

TAGS = Document(
    name="Tags",
    field="tags",
    text="""\
query Tags($projectId: HashId!) {
  tags(projectId: $projectId) { id key name type description createdAt updatedAt creator }
}
""",
)

SEGMENTS = Document(
    name="Segments",
    field="segments",
    text="""\
query Segments($projectId: HashId!) {
  segments(projectId: $projectId) { id name description scheduler createdBy createdAt updatedAt creator }
}
""",
)

FUNNEL_ANALYSES = Document(
    name="FunnelAnalyses",
    field="funnelAnalyses",
    text="""\
query FunnelAnalyses($projectId: HashId!) {
  funnelAnalyses(projectId: $projectId) { id name description timeRange createdAt updatedAt creator }
}
""",
)

EVENT_ANALYSES = Document(
    name="EventAnalyses",
    field="eventAnalyses",
    text="""\
query EventAnalyses($projectId: HashId!) {
  eventAnalyses(projectId: $projectId) { id name description timeRange createdAt updatedAt creator }
}
""",
)

RETENTION_ANALYSES = Document(
    name="RetentionAnalyses",
    field="retentionAnalyses",
    text="""\
query RetentionAnalyses($projectId: HashId!) {
  retentionAnalyses(projectId: $projectId) { id name description timeRange createdAt updatedAt creator }
}
""",
)

FREQUENCY_ANALYSES = Document(
    name="FrequencyAnalyses",
    field="frequencyAnalyses",
    text="""\
query FrequencyAnalyses($projectId: HashId!) {
  frequencyAnalyses(projectId: $projectId) { id name description timeRange createdAt updatedAt creator }
}
""",
)

USER_PROFILE = Document(
    name="UserProfile",
    field="userProfile",
    text="""\
query UserProfile($projectId: HashId!, $userId: String, $tags: [HashId!], $properties: [String!]) {
  userProfile(projectId: $projectId, userId: $userId, tags: $tags, properties: $properties) {
    id userId properties { key name value }
  }
}
""",
)
"""At least one of `tags` and `properties` must be given. A null response means that the user is unknown."""

DATA_CENTER_USER_PROFILE = Document(
    name="DataCenterUserProfile",
    field="dataCenterUserProfile",
    text="""\
query DataCenterUserProfile($userId: String!, $tags: [HashId!], $properties: [String!]) {
  dataCenterUserProfile(userId: $userId, tags: $tags, properties: $properties) {
    id userId properties { key name value }
  }
}
""",
)
"""Like `USER_PROFILE`, for all projects. Only the SDK has the argument `tags` here."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The documents that list one resource of the catalog.

    Args:
        of_project: Lists the items of one project; None when the items do not belong to projects.
        of_all: Lists the items of the whole data centre; None when the platform has no such query.
    """

    of_project: Document | None = None
    of_all: Document | None = None


LISTINGS: dict[str, Listing] = {
    "projects": Listing(of_all=PROJECTS),
    "tags": Listing(of_project=TAGS, of_all=DATA_CENTER_TAGS),
    "segments": Listing(of_project=SEGMENTS),
    "funnels": Listing(of_project=FUNNEL_ANALYSES),
    "events": Listing(of_project=EVENT_ANALYSES),
    "retentions": Listing(of_project=RETENTION_ANALYSES),
    "frequencies": Listing(of_project=FREQUENCY_ANALYSES),
}

DOCUMENTS: tuple[Document, ...] = (
    SUBMIT_TAG_BY_KEY,
    SUBMIT_TAG,
    SUBMIT_TAG_NAMED,
    SUBMIT_SEGMENT,
    SUBMIT_ANALYSIS,
    JOB_RESULT,
    PROJECTS,
    DATA_CENTER_TAGS,
    TAGS,
    SEGMENTS,
    FUNNEL_ANALYSES,
    EVENT_ANALYSES,
    RETENTION_ANALYSES,
    FREQUENCY_ANALYSES,
    USER_PROFILE,
    DATA_CENTER_USER_PROFILE,
)
"""All documents."""
