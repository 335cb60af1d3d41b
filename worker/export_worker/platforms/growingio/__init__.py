"""The driver of GrowingIO's GraphQL API.

`submitTagUserExportJobByKey` replaces `submitTagUserExportJob` from version 13.4 on. See
https://docs.growingio.com/op/developer-manual/api-reference/cdp/description/datacenter.
"""
