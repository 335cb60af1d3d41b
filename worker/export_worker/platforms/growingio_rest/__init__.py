"""The driver of GrowingIO's REST API.

Facts that the document of version 2.9 does not have:

- Version 4.x has segment profiles and tags in spaces, and tags of the project beside them. See
  https://docs.growingio.com/op-help/docs/4.1/developer-manual/open-api/cdp/space/space-download-segment-profile-users
  and, for tags, the pages beside it: `space-download-user-tag-users`, and `project-compute-user-tag` of the project.
- All versions have the result of a job at `/v1/api/job/result/{id}`, also for a job of a space.
- The listing of projects is on no page of version 2.9 that was found, so no check rests on it.
"""
