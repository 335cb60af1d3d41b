"""The driver of ThinkingData.

Facts that the document of the user cluster API does not have:

- The SQL API: `submit-sql`, `sql-task-info`, `sql-result-page` and `cancel-sql-task`. Its POSTs are forms, not JSON.
  See https://docs.thinkingdata.cn/ta-manual/v3.5/technical_document/open_api/data_api.html and, for version 4.1,
  https://docs.thinkingdata.jp/ta-manual/v4.1/en/technical_document/open_api/data_api.html. Public clients send the
  `taskId` of `cancel-sql-task` in the form.
- The tables of members and users, and the columns `tag_value`, `tag_value_num` (numbers), `tag_value_tm` (times) and
  `#varchar_id` (uploaded texts): no document describes them. They come from public statements, which compare a column
  of users with `#varchar_id` as text. The column with the values of lists is inferred, so it is a setting.
- A call of the cluster API has a `projectId`. In the document, those of the SQL API have none, so it is a setting.
"""
