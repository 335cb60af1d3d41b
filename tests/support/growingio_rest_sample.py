"""The export that GrowingIO's segment profile document shows: its request, its paths, its responses and its file."""

from export_worker.contract.request import GrowingioSegmentProfileUsers
from export_worker.lifecycle.observations import RemoteFile

SEGMENT = GrowingioSegmentProfileUsers(project_id="WlGk4Daj", segment_key="seg_51activity")
SUBMIT = "/v1/api/projects/WlGk4Daj/segment_profiles/seg_51activity/export_jobs"
JOB_ID = "kqQeWeGr"
RESULT = f"/v1/api/job/result/{JOB_ID}"
SUBMITTED = {"id": JOB_ID, "name": "DES-202205240136-5818534160000"}
URI = (
    "%2Fjobs%2Fresults%2FDES-202205240136-5818534160000%2F"
    "zxm_%E7%94%A8%E6%88%B7_%E5%AD%97%E7%AC%A6%E4%B8%B2_%E5%8A%A0%E5%AF%86_2022-04-26_UserList.csv"
)
FILE = RemoteFile(URI, "zxm_用户_字符串_加密_2022-04-26_UserList.csv")
ODD_FILE = '“gio_id","d_$basic_userId","usr_gender","tag_rfm"\n"603542","C001","男”,\n"605419","C004",,"低"\n'
"""The content of a file, with the odd quotes that the document prints."""
